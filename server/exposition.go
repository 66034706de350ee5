package server

import (
	"strconv"
	"strings"
)

// expositionType is the type of the text that Prometheus reads.
const expositionType = "text/plain; version=0.0.4; charset=utf-8"

// exposition is text in that format: families of samples, each with a line of
// help and its type.
type exposition struct {
	text []byte
	name string // of the last family
}

// label tells samples of a family apart.
type label struct{ name, value string }

// family begins one: "counter", "gauge" or "histogram".
func (e *exposition) family(name, kind, help string) {
	e.name = name
	e.text = append(e.text, "# HELP "+name+" "+escapeHelp.Replace(help)+"\n# TYPE "+name+" "+kind+"\n"...)
}

// add adds a sample to the last family.
func (e *exposition) add(value float64, labels ...label) { e.sample("", value, labels...) }

// counter adds a family of one sample, and so does gauge.
func (e *exposition) counter(name, help string, value float64) {
	e.family(name, "counter", help)
	e.add(value)
}

func (e *exposition) gauge(name, help string, value float64) {
	e.family(name, "gauge", help)
	e.add(value)
}

// histogram adds the samples of a histogram, whose buckets count what the ones
// before them count too.
func (e *exposition) histogram(h *histogram, labels ...label) {
	var count uint64
	for i := range h.buckets {
		count += h.buckets[i].Load()
		bound := "+Inf"
		if i < len(latencyBounds) {
			bound = number(latencyBounds[i].Seconds())
		}
		e.sample("_bucket", float64(count), append(labels[:len(labels):len(labels)], label{"le", bound})...)
	}
	e.sample("_sum", float64(h.sum.Load())/1e9, labels...)
	e.sample("_count", float64(count), labels...)
}

// sample adds a line.
func (e *exposition) sample(suffix string, value float64, labels ...label) {
	e.text = append(append(e.text, e.name...), suffix...)
	separator := byte('{')
	for _, l := range labels {
		e.text = append(e.text, separator)
		e.text = append(e.text, l.name+`="`+escapeLabel.Replace(l.value)+`"`...)
		separator = ','
	}
	if len(labels) > 0 {
		e.text = append(e.text, '}')
	}
	e.text = append(append(append(e.text, ' '), number(value)...), '\n')
}

var (
	escapeHelp  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	escapeLabel = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// number writes a value for people too: whole ones without an exponent.
func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
