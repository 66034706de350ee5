package server

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// appendStatusLine appends the first line of a response.
func appendStatusLine(b []byte, status int) []byte {
	if status == http.StatusOK {
		return append(b, "HTTP/1.1 200 OK\r\n"...)
	}
	b = strconv.AppendInt(append(b, "HTTP/1.1 "...), int64(status), 10)
	b = append(append(b, ' '), http.StatusText(status)...)
	return append(b, "\r\n"...)
}

// dateLine is the Date of responses within one second.
type dateLine struct {
	second int64
	text   []byte
}

var lastDate atomic.Pointer[dateLine]

// appendDate appends the line that tells the time.
func appendDate(b []byte, now time.Time) []byte {
	d := lastDate.Load()
	if d == nil || d.second != now.Unix() {
		text := appendTime([]byte("Date: "), now)
		d = &dateLine{now.Unix(), append(text, "\r\n"...)}
		lastDate.Store(d)
	}
	return append(b, d.text...)
}

// appendTime appends a time as http.TimeFormat has it, which takes Go's own
// formatting several times as long.
func appendTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	if year < 0 || year > 9999 {
		return t.AppendFormat(b, http.TimeFormat)
	}
	hour, minute, second := t.Clock()
	const days, months = "SunMonTueWedThuFriSat", "JanFebMarAprMayJunJulAugSepOctNovDec"
	weekday := 3 * int(t.Weekday())
	m := 3 * (int(month) - 1)
	b = append(b, days[weekday:weekday+3]...)
	b = append(b, ',', ' ', digit(day/10), digit(day), ' ')
	b = append(b, months[m:m+3]...)
	return append(b, ' ', digit(year/1000), digit(year/100), digit(year/10), digit(year),
		' ', digit(hour/10), digit(hour), ':', digit(minute/10), digit(minute), ':', digit(second/10), digit(second),
		' ', 'G', 'M', 'T')
}

// digit is the last one of a number.
func digit(n int) byte { return byte('0' + n%10) }
