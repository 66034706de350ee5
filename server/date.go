package server

import (
	"slices"
	"strings"
	"time"
)

// The names of the days of the week in dates.
var (
	shortDays = []string{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}
	longDays  = []string{"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}
)

// dateForms are the forms of an HTTP-date (RFC 9110, section 5.6.7): a day of the
// week, which nobody needs, something behind it and a layout. All but the first
// are obsolete.
var dateForms = []struct {
	days           []string
	behind, layout string
}{
	{shortDays, ", ", "02 Jan 2006 15:04:05 GMT"},
	{longDays, ", ", "02-Jan-06 15:04:05 GMT"},
	{shortDays, " ", "Jan _2 15:04:05 2006"},
	{shortDays, " ", "Jan 02 15:04:05 2006"},
}

// parseDate reads an HTTP-date, to the letter: http.ParseTime takes other letters,
// zones and fractions of a second as well, and has its own idea of years of two
// digits. One more than 50 years from now on has passed already.
func parseDate(text string, now time.Time) (time.Time, bool) {
	for _, form := range dateForms {
		day, rest, ok := strings.Cut(text, form.behind)
		if !ok || !slices.Contains(form.days, day) {
			continue
		}
		t, err := time.Parse(form.layout, rest)
		var room [len("02 Jan 2006 15:04:05 GMT")]byte
		if err != nil || string(t.AppendFormat(room[:0], form.layout)) != rest {
			continue
		}
		if strings.Contains(form.layout, "-06 ") {
			t = t.AddDate(now.Year()/100*100+t.Year()%100-t.Year(), 0, 0)
			if t.After(now.AddDate(50, 0, 0)) {
				t = t.AddDate(-100, 0, 0)
			}
		}
		return t, true
	}
	return time.Time{}, false
}
