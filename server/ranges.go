package server

import (
	"net/textproto"
	"strconv"
	"strings"
)

// span is a part of a value.
type span struct {
	off, n int64
}

// appendContentRange appends the header that says which part of size bytes a
// span is.
func (s span) appendContentRange(b []byte, size int64) []byte {
	b = strconv.AppendInt(append(b, "bytes "...), s.off, 10)
	b = strconv.AppendInt(append(b, '-'), s.off+s.n-1, 10)
	return strconv.AppendInt(append(b, '/'), size, 10)
}

// rangeKind is what a Range header comes to.
type rangeKind int

const (
	wholeValue    rangeKind = iota // 200
	partOfValue                    // 206
	unsatisfiable                  // 416
)

// parseRange reads the Range header, if any, of a request for a value of size
// bytes. A server may ignore any Range (RFC 9110, section 14.2), and this one
// sends the whole value for several ranges, for other units, for what it can't
// read, and for an empty value, since some clients ask everything with a Range.
func parseRange(ranges string, size int64) (span, rangeKind) {
	whole := span{0, size}
	if ranges == "" || size == 0 {
		return whole, wholeValue
	}
	unit, set, ok := strings.Cut(ranges, "=")
	if !ok || !strings.EqualFold(unit, "bytes") {
		return whole, wholeValue
	}
	first, last, ok := onlyRange(set)
	if !ok {
		return whole, wholeValue
	}
	if first == "" {
		return suffix(last, size)
	}
	return between(first, last, size)
}

// onlyRange splits the one range in a list. Lists may have empty elements.
func onlyRange(set string) (first, last string, ok bool) {
	for element := range strings.SplitSeq(set, ",") {
		element = textproto.TrimString(element)
		switch {
		case element == "":
			continue
		case ok:
			return "", "", false
		}
		if first, last, ok = strings.Cut(element, "-"); !ok {
			return "", "", false
		}
		first, last = textproto.TrimString(first), textproto.TrimString(last)
	}
	return first, last, ok
}

// suffix is the range "-n", the last n bytes.
func suffix(n string, size int64) (span, rangeKind) {
	length, ok := position(n)
	switch {
	case !ok:
		return span{0, size}, wholeValue
	case length == 0:
		return span{}, unsatisfiable
	}
	length = min(length, size)
	return span{size - length, length}, partOfValue
}

// between is the range "first-last" or "first-".
func between(first, last string, size int64) (span, rangeKind) {
	from, ok := position(first)
	to := size - 1
	if ok && last != "" {
		to, ok = position(last)
	}
	switch {
	case !ok:
		return span{0, size}, wholeValue
	case last != "" && to < from:
		return span{0, size}, wholeValue // not a range, says the grammar
	case from >= size:
		return span{}, unsatisfiable
	}
	return span{from, min(to, size-1) - from + 1}, partOfValue
}

// position reads a number of digits only. One too large for a file is far
// beyond the end of every value, which is all that needs to be known.
func position(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil || n > 0 // out of range gives the largest number
}
