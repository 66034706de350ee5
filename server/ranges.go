package server

import (
	"net/textproto"
	"slices"
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

// touches reports whether two spans overlap or one begins where the other ends.
func (s span) touches(t span) bool { return s.off <= t.off+t.n && t.off <= s.off+s.n }

// union is the span of two that touch.
func (s span) union(t span) span {
	off := min(s.off, t.off)
	return span{off, max(s.off+s.n, t.off+t.n) - off}
}

// rangeKind is what a Range header comes to.
type rangeKind int

const (
	wholeValue    rangeKind = iota // 200
	partOfValue                    // 206
	unsatisfiable                  // 416
)

// maxRanges is how many ranges a request may have.
const maxRanges = 16

// parseRange reads the Range header, if any, of a request for a value of size
// bytes. Of partOfValue it returns the parts, in the order of the request, in the
// memory of list: at least one, which do not touch, and are together no larger
// than the value.
//
// A server may ignore any Range (RFC 9110, section 14.2), and this one sends the
// whole value for other units, for what it can't read, for more ranges than
// maxRanges, for several that are together larger than the value, and for an
// empty value, since some clients ask everything with a Range.
func parseRange(list []span, ranges string, size int64) ([]span, rangeKind) {
	list = list[:0]
	unit, set, ok := strings.Cut(ranges, "=")
	if !ok || size == 0 || !strings.EqualFold(unit, "bytes") {
		return list, wholeValue
	}
	asked, left := 0, size
	for element := range strings.SplitSeq(set, ",") {
		if element = textproto.TrimString(element); element == "" {
			continue // lists may have empty elements
		}
		part, kind := oneRange(element, size)
		asked++
		left -= part.n
		if kind == wholeValue || asked > maxRanges || left < 0 {
			return list[:0], wholeValue
		}
		if kind == partOfValue {
			list = coalesce(list, part)
		}
	}
	switch {
	case asked == 0:
		return list, wholeValue
	case len(list) == 0:
		return list, unsatisfiable
	}
	return list, partOfValue
}

// coalesce adds a part to a list of parts that do not touch. It becomes one with
// those it touches, in the place of the first of them.
func coalesce(list []span, part span) []span {
	at := len(list)
	for i := 0; i < len(list); {
		if !list[i].touches(part) {
			i++
			continue
		}
		part = part.union(list[i])
		list = slices.Delete(list, i, i+1)
		at = min(at, i)
	}
	return slices.Insert(list, at, part)
}

// oneRange reads one range. What is not one is wholeValue.
func oneRange(element string, size int64) (span, rangeKind) {
	first, last, ok := strings.Cut(element, "-")
	first, last = textproto.TrimString(first), textproto.TrimString(last)
	switch {
	case !ok:
		return span{}, wholeValue
	case first == "":
		return suffix(last, size)
	}
	return between(first, last, size)
}

// suffix is the range "-n", the last n bytes.
func suffix(n string, size int64) (span, rangeKind) {
	length, ok := position(n)
	switch {
	case !ok:
		return span{}, wholeValue
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
		return span{}, wholeValue
	case last != "" && to < from:
		return span{}, wholeValue // not a range, says the grammar
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
