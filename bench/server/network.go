package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

const congestionControl = "/proc/sys/net/ipv4/tcp_congestion_control"

// ownNetwork gives the calling goroutine, and all processes that it starts from
// then on, a network of their own that has a loopback device and nothing else.
// There every TCP connection goes by reno: BBR, which is the default of some
// machines, makes a large send over loopback cost several times as much. Only
// root can have that; others must have a default that is not BBR.
func ownNetwork() (algorithm string, err error) {
	runtime.LockOSThread() // and so the thread ends with the goroutine
	switch err := unix.Unshare(unix.CLONE_NEWNET); {
	case errors.Is(err, unix.EPERM):
		return sharedNetwork()
	case err != nil:
		return "", os.NewSyscallError("unshare", err)
	}
	if err := loopbackUp(); err != nil {
		return "", fmt.Errorf("loopback device: %w", err)
	}
	const reno = "reno"
	return reno, os.WriteFile(congestionControl, []byte(reno), 0)
}

var errBBR = errors.New("TCP goes by bbr here, which spoils what is sent over loopback: run as root, or set net.ipv4.tcp_congestion_control to reno for the time being")

func sharedNetwork() (algorithm string, err error) {
	text, err := os.ReadFile(congestionControl)
	algorithm = strings.TrimSpace(string(text))
	if algorithm == "bbr" {
		err = errBBR
	}
	return algorithm, err
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, request)
}
