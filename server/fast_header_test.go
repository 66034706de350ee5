package server

import (
	"math/rand/v2"
	"net/http"
	"testing"
	"time"
)

// TestAppendTime: times look as Go itself writes them. Method: every day of 800
// years, at some moment, and odd years.
func TestAppendTime(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	day := time.Date(1600, 1, 1, 0, 0, 0, 0, time.FixedZone("x", 3*3600))
	for range 800 * 366 {
		checkTime(t, day.Add(time.Duration(rng.Int64N(int64(24*time.Hour)))))
		day = day.AddDate(0, 0, 1)
	}
	for _, year := range []int{-10000, -1, 0, 1, 999, 9999, 10000, 99999} {
		checkTime(t, time.Date(year, 12, 31, 23, 59, 59, 0, time.UTC))
	}
	checkTime(t, time.Time{})
}

func checkTime(t *testing.T, at time.Time) {
	t.Helper()
	if got, want := string(appendTime(nil, at)), at.UTC().Format(http.TimeFormat); got != want {
		t.Fatalf("%q, want %q", got, want)
	}
}
