package cli

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/crowfly/crowfly/db"
)

// keyArg is a key on the command line. One that no store can hold is a wrong
// command line.
type keyArg string

// Decode implements kong.MapperValue.
func (k *keyArg) Decode(ctx *kong.DecodeContext) error {
	if err := decodeRaw(ctx, reflect.ValueOf(k).Elem()); err != nil {
		return err
	}
	return checkKey(string(*k))
}

// versionArg is a version as it is printed, with quotes around it or not.
type versionArg db.Version

// Decode implements kong.MapperValue.
func (v *versionArg) Decode(ctx *kong.DecodeContext) error {
	token, err := ctx.Scan.PopValue("version")
	if err != nil {
		return err
	}
	text := strings.Trim(token.String(), `"`)
	sum, seq, _ := strings.Cut(text, "-")
	v.Sum, _ = strconv.ParseUint(sum, 16, 64)
	v.Seq, _ = strconv.ParseUint(seq, 16, 64)
	if db.Version(*v).String() != text {
		return fmt.Errorf("%q is not a version", text)
	}
	return nil
}

// rangeArg is a part of a value as it is written in HTTP.
type rangeArg struct{ first, last int64 } // -1 if left out

var errRange = errors.New("must be FIRST-LAST, FIRST- or -N")

// Decode implements kong.MapperValue.
func (r *rangeArg) Decode(ctx *kong.DecodeContext) error {
	token, err := ctx.Scan.PopValue("range")
	if err != nil {
		return err
	}
	first, last, ok := strings.Cut(token.String(), "-")
	r.first, err = position(first)
	if err == nil {
		r.last, err = position(last)
	}
	if !ok || err != nil || first == "" && last == "" || last != "" && r.last < r.first {
		return errRange
	}
	return nil
}

// position is a number of digits only, or -1 if there are none.
func position(s string) (int64, error) {
	if s == "" {
		return -1, nil
	}
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err
}

// of is the part that r means of a value of size bytes. No range is all of it.
func (r *rangeArg) of(size int64) (span, error) {
	switch {
	case r == nil:
		return span{0, size}, nil
	case r.first < 0:
		n := min(r.last, size)
		return span{size - n, n}, nil
	case r.first >= size:
		return span{}, fmt.Errorf("the range begins at %d, the value has %d bytes", r.first, size)
	case r.last < 0:
		return span{r.first, size - r.first}, nil
	}
	return span{r.first, min(r.last, size-1) - r.first + 1}, nil
}

// decodeRaw takes an argument byte for byte. Kong by itself sends it through
// JSON, which spoils keys and file names that are not UTF-8.
func decodeRaw(ctx *kong.DecodeContext, target reflect.Value) error {
	token, err := ctx.Scan.PopValue("string")
	if err != nil {
		return err
	}
	target.SetString(token.String())
	return nil
}
