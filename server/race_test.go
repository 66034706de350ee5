//go:build race

package server

// raceDetector says that memory is the race detector's, for the most part.
const raceDetector = true
