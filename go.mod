module github.com/crowfly/crowfly

go 1.26.0

require (
	github.com/alecthomas/kong v1.17.0
	github.com/cespare/xxhash/v2 v2.3.0
	github.com/google/btree v1.1.3
	golang.org/x/sys v0.49.0
)
