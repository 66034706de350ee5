// Package fuzz tests the whole store: against a model, across power cuts,
// with damaged and foreign files, and with the engine sabotaged on purpose to
// see that these tests notice. It has no code of its own.
//
//	operation_test.go   what a random history is made of
//	reference_test.go   what a store has to contain, certainly or possibly
//	session_test.go     a store driven by a history, next to its reference
//	model_test.go       histories compared after every step
//	errors_test.go      every file operation of a workload fails once, or for ever
//	crash_test.go       a power cut after every file operation of a history
//	sabotage_test.go    proof that the above fail when they should
//
// Environment variables widen the tests:
//
//	CROWFLY_POINTS=n        check n crash images instead of the default
//	CROWFLY_SEED=n          start with this history
//	CROWFLY_REPLAY=path     check this crash image of that history only
//	CROWFLY_SABOTAGE=all    try every sabotage, not only the first
//	CROWFLY_ERRORS=all      let every file operation fail in every way
//	CROWFLY_FULL=1          do damage to every bit instead of a sample
package fuzz
