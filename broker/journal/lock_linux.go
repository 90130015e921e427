package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Open-file-description locks: unlike POSIX locks they are not lost when somebody in the process closes another descriptor of the file, and they
// exclude a second journal in the same process.

func tryLock(f *os.File) (bool, error) {
	k := unix.Flock_t{Type: unix.F_WRLCK}
	switch err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &k); {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES), errors.Is(err, unix.EINTR):
		return false, nil
	default:
		return false, err
	}
}

func lockIsFree(f *os.File) (bool, error) {
	k := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &k); err != nil && !errors.Is(err, unix.EINTR) {
		return false, err
	}
	return k.Type == unix.F_UNLCK, nil
}

// selfPulse identifies this process for as long as the machine is up.
func selfPulse(node string) (pulse, error) {
	p := pulse{Node: node, PID: os.Getpid()}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return p, err
	}
	p.Boot = strings.TrimSpace(string(boot))
	if p.Space, err = os.Readlink("/proc/self/ns/pid"); err != nil {
		return p, err
	}
	p.Start, err = startTime(p.PID)
	return p, err
}

// startTime is field 22 of /proc/pid/stat, counted behind the command's name, which may hold anything.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 20 {
		return 0, fmt.Errorf("read start time of process %d: short stat", pid)
	}
	return strconv.ParseUint(string(f[19]), 10, 64)
}

// killProcess sends SIGKILL to the process that had this PID since start, if sure still says so. The descriptor pins the process, so that a PID that was
// given to another meanwhile is found out by its start time.
func killProcess(pid int, start uint64, sure func() bool) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	now, err := startTime(pid)
	if err != nil {
		return err
	}
	if now != start {
		return fmt.Errorf("process %d is not the owner: it started later", pid)
	}
	if !sure() {
		return fmt.Errorf("process %d came back to life", pid)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	return nil
}
