package server

import (
	"math"
	"strings"
	"testing"

	"github.com/crowfly/crowfly/db"
)

// TestOptionsCheck promises that a limit which can't be obeyed is refused by the
// name of its option.
func TestOptionsCheck(t *testing.T) {
	store := openStore(t)
	for _, c := range []struct {
		name string
		o    Options
	}{
		{"MaxBody", Options{MaxBody: -1}},
		{"MaxBody", Options{MaxBody: db.MaxValue + 1}},
		{"MaxInFlight", Options{MaxInFlight: math.MinInt64}},
		{"MaxConns", Options{MaxConns: -5}},
	} {
		want := "server: Options." + c.name + " is "
		if err := c.o.Check(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v", c.o, err)
		}
		for _, build := range []func(){func() { New(store, &c.o) }, func() { NewHandler(store, &c.o) }} {
			func() {
				defer func() {
					if err, _ := recover().(error); err == nil || !strings.HasPrefix(err.Error(), want) {
						t.Errorf("%+v: panic with %v", c.o, err)
					}
				}()
				build()
			}()
		}
	}
	for _, o := range []Options{{}, {MaxBody: db.MaxValue, MaxInFlight: math.MaxInt64, MaxConns: math.MaxInt}} {
		if err := o.Check(); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
