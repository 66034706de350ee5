//go:build linux

package db

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// TestMain lets the test binary play the process that is killed on a full disk.
func TestMain(m *testing.M) {
	if dir := os.Getenv("CROWFLY_TEST_FILL"); dir != "" {
		fmt.Fprintln(os.Stderr, fillDisk(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// fillCommand is a process that fills the disk with a store in dir.
func fillCommand(dir string) *exec.Cmd {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "CROWFLY_TEST_FILL="+dir)
	c.Stderr = os.Stderr
	return c
}
