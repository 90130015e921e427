//go:build unix && !linux

package journal

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

var errNoKill = errors.New("needs Linux (pidfd); use strict")

func tryLock(f *os.File) (bool, error) {
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EWOULDBLOCK), errors.Is(err, unix.EINTR):
		return false, nil
	default:
		return false, err
	}
}

// lockIsFree looks by trying: there is no other way with flock.
func lockIsFree(f *os.File) (bool, error) {
	got, err := tryLock(f)
	if got {
		err = unix.Flock(int(f.Fd()), unix.LOCK_UN)
	}
	return got, err
}

func selfPulse(node string) (pulse, error) {
	return pulse{Node: node, PID: os.Getpid()}, errNoKill
}

func killProcess(int, uint64, func() bool) error { return errNoKill }
