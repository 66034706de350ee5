package main

import (
	"reflect"

	"github.com/alecthomas/kong"
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
