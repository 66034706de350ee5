//go:build race

package fuzz

// underRace says that everything takes some ten times as long.
const underRace = true
