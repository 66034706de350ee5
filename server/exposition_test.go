package server

import (
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	helpLine   = regexp.MustCompile(`^# HELP ([a-z_]+) (\S.*\.)$`)
	typeLine   = regexp.MustCompile(`^# TYPE ([a-z_]+) (counter|gauge|histogram)$`)
	sampleLine = regexp.MustCompile(`^([a-z_]+)(\{(?:[a-z_]+="(?:[^"\\]|\\["\\n])*",?)+\})? (-?[0-9.]+|\+Inf)$`)
	bucketEnd  = regexp.MustCompile(`,?le="([^"]*)"`)
)

// parseExposition reads a page, and checks what the format asks for: help and
// type of each family, once and before its samples, counters that end in
// _total, no sample twice, and buckets that add up. Samples are by their line
// without the value.
func parseExposition(t *testing.T, page string) map[string]float64 {
	t.Helper()
	samples := map[string]float64{}
	var families []string
	kind, last := "", ""
	if !strings.HasSuffix(page, "\n") {
		t.Error("the last line has no end")
	}
	for line := range strings.Lines(page) {
		line = strings.TrimSuffix(line, "\n")
		before := last
		last = line
		if help := helpLine.FindStringSubmatch(line); help != nil {
			if slices.Contains(families, help[1]) {
				t.Errorf("family %s twice", help[1])
			}
			families = append(families, help[1])
			continue
		}
		if m := typeLine.FindStringSubmatch(line); m != nil {
			kind = m[2]
			if !strings.HasPrefix(before, "# HELP "+m[1]+" ") || strings.HasSuffix(m[1], "_total") != (kind == "counter") {
				t.Errorf("%q after %q", line, before)
			}
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("not a line of the format: %q", line)
			continue
		}
		name := m[1]
		if kind == "histogram" {
			name = regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
		}
		if len(families) == 0 || name != families[len(families)-1] {
			t.Errorf("%q is not of the family before it", line)
		}
		value, err := strconv.ParseFloat(m[3], 64)
		if _, twice := samples[m[1]+m[2]]; twice || err != nil {
			t.Errorf("%q: there before %v, %v", line, twice, err)
		}
		samples[m[1]+m[2]] = value
		if kind == "histogram" {
			checkBucket(t, samples, m[1], m[2], before)
		}
	}
	return samples
}

// checkBucket compares a sample of a histogram with those before it.
func checkBucket(t *testing.T, samples map[string]float64, name, labels, before string) {
	t.Helper()
	family, isCount := strings.CutSuffix(name, "_count")
	if isCount {
		all := strings.TrimSuffix(labels, "}") + `,le="+Inf"}`
		if n, ok := samples[family+"_bucket"+all]; !ok || n != samples[name+labels] {
			t.Errorf("%s%s is %v, its last bucket has %v", name, labels, samples[name+labels], n)
		}
		return
	}
	previous := sampleLine.FindStringSubmatch(before)
	if !strings.HasSuffix(name, "_bucket") || previous == nil || previous[1] != name {
		return
	}
	end, _ := strconv.ParseFloat(bucketEnd.FindStringSubmatch(labels)[1], 64)
	endBefore, _ := strconv.ParseFloat(bucketEnd.FindStringSubmatch(previous[2])[1], 64)
	if end <= endBefore || samples[name+labels] < samples[previous[1]+previous[2]] {
		t.Errorf("%s%s after %q", name, labels, before)
	}
}

// What a label may have in it must not end the line or the label.
func TestExpositionEscapes(t *testing.T) {
	var e exposition
	e.family("a_total", "counter", "One \\ two\nthree.")
	e.add(1e15, label{"x", "\"q\" \\ \n é"}, label{"y", ""})
	e.add(0.000025)
	const want = `# HELP a_total One \\ two\nthree.
# TYPE a_total counter
a_total{x="\"q\" \\ \n é",y=""} 1000000000000000
a_total 0.000025
`
	if got := string(e.text); got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
	parseExposition(t, string(e.text))
}

// A time counts in the first bucket that it is not above.
func TestHistogram(t *testing.T) {
	var h histogram
	for _, d := range []time.Duration{0, 10 * time.Microsecond, 10*time.Microsecond + 1, time.Minute, time.Minute + 1, time.Hour} {
		h.add(d)
	}
	var e exposition
	e.family("h_seconds", "histogram", "Times.")
	e.histogram(&h, label{"a", "b"})
	got := parseExposition(t, string(e.text))
	for line, want := range map[string]float64{
		`h_seconds_bucket{a="b",le="0.00001"}`:  2,
		`h_seconds_bucket{a="b",le="0.000025"}`: 3,
		`h_seconds_bucket{a="b",le="10"}`:       3,
		`h_seconds_bucket{a="b",le="60"}`:       4,
		`h_seconds_bucket{a="b",le="+Inf"}`:     6,
		`h_seconds_count{a="b"}`:                6,
		`h_seconds_sum{a="b"}`:                  3720.000020002,
	} {
		if n, ok := got[line]; !ok || n != want {
			t.Errorf("%s: %v, want %v", line, n, want)
		}
	}
	if len(got) != len(latencyBounds)+3 {
		t.Errorf("%d samples: %v", len(got), slices.Sorted(maps.Keys(got)))
	}
}

// TestPromtool has Prometheus itself look at a page.
func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		skip(t, "no promtool")
	}
	store := openStore(t)
	_, addr := start(t, store, &Options{Metrics: true})
	page := dial(t, addr).do("GET", "/-/metrics", "")
	page.wantStatus(t, 200)
	cmd := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(string(page.body))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s\n%s", err, out, page.body)
	}
}
