package ops

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// CheckListen reads the host:port of a listening flag without binding it. A port of 0 means any that is free.
func CheckListen(flag, addr string, allowRemote bool) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return &UsageError{flag, addr, "must be host:port, for example 127.0.0.1:61613"}
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return &UsageError{flag, addr, fmt.Sprintf("port %q must be a number from 0 to 65535", port)}
	}
	if !allowRemote && !Loopback(host) {
		return &UsageError{flag, addr, "is reachable from other machines; use 127.0.0.1, or add --allow-remote if that is meant"}
	}
	return nil
}

// Loopback reports whether a host is this machine only. Names other than localhost are not: what they point at can change.
func Loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// Listen binds addr, which CheckListen found good.
func Listen(ctx context.Context, flag, addr string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err == nil {
		return l, nil
	}
	err = fmt.Errorf("listen on --%s %s: %w", flag, addr, rootCause(err))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		err = Hint(err, "another process has the port: stop it, or choose another port; 0 takes a free one")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		err = Hint(err, "no interface of this machine has that address")
	case errors.Is(err, syscall.EACCES):
		err = Hint(err, "ports below 1024 need a privilege: choose a higher one")
	}
	return nil, err
}

// rootCause drops what net.OpError repeats of the address.
func rootCause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// Address is one line of an address file.
type Address struct{ Name, Addr string }

// Addresses is what an address file holds, in order.
type Addresses []Address

// WriteAddrFile writes name=host:port lines for scripts that chose port 0. The file appears whole or not at all.
func WriteAddrFile(path string, addrs Addresses) error {
	var text strings.Builder
	for _, a := range addrs {
		fmt.Fprintf(&text, "%s=%s\n", a.Name, a.Addr)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write --addr-file %s: %w", path, err)
	}
	defer os.Remove(tmp.Name()) // fails after the rename, as it should
	_, err = tmp.WriteString(text.String())
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write --addr-file %s: %w", path, err)
	}
	return nil
}

// CheckDir makes sure that dir can be written to, and makes it if it is not there. A standby would else find out only when it is needed. What dir is to
// be made in must be there: on a file system that is not mounted something else would be made, which nobody finds once it is.
func CheckDir(flag, dir string) error {
	_, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = os.Mkdir(filepath.Clean(dir), 0o700)
		if errors.Is(err, fs.ErrNotExist) {
			return Hint(fmt.Errorf("open --%s %s: %w", flag, dir, err), "it is made if it is not there, but not what it lies in: is the file system of "+filepath.Dir(filepath.Clean(dir))+" mounted?")
		}
		if errors.Is(err, fs.ErrExist) {
			err = nil // another one has made it
		}
	}
	if err == nil {
		var probe *os.File
		if probe, err = os.CreateTemp(dir, ".writable-*"); err == nil {
			err = errors.Join(probe.Close(), os.Remove(probe.Name()))
		}
	}
	if err != nil {
		return Hint(fmt.Errorf("open --%s %s: %w", flag, dir, err), "it must be a directory that this user can read and write, or one that can be made")
	}
	return nil
}
