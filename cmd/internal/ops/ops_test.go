package ops

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestCheckListen(t *testing.T) {
	for _, c := range []struct {
		addr   string
		remote bool
		want   string // part of the error; "" = good
	}{
		{"127.0.0.1:61613", false, ""},
		{"127.0.0.1:0", false, ""},
		{"127.9.9.9:1", false, ""},
		{"[::1]:61613", false, ""},
		{"[::ffff:127.0.0.1]:1", false, ""},
		{"localhost:61613", false, ""},
		{"0.0.0.0:61613", false, "--allow-remote"},
		{":61613", false, "--allow-remote"},
		{"[::]:61613", false, "--allow-remote"},
		{"192.0.2.1:61613", false, "--allow-remote"},
		{"broker.example:61613", false, "--allow-remote"},
		{"0.0.0.0:61613", true, ""},
		{":61613", true, ""},
		{"61613", false, "must be host:port"},
		{"", false, "must be host:port"},
		{"127.0.0.1:http", false, "must be a number"},
		{"127.0.0.1:-1", false, "must be a number"},
		{"127.0.0.1:65536", true, "must be a number"},
	} {
		err := CheckListen("listen", c.addr, c.remote)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !IsUsage(err)) {
			t.Errorf("%q remote %v: %v, want %q", c.addr, c.remote, err, c.want)
		}
	}
}

func TestListenSaysWhatToDo(t *testing.T) {
	l, err := Listen(t.Context(), "listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Listen(t.Context(), "listen", l.Addr().String())
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "--listen "+l.Addr().String()) || !strings.Contains(err.Error(), "another port") {
		t.Error(err)
	}
	if _, err = Listen(t.Context(), "listen", "192.0.2.1:0"); err == nil || !strings.Contains(err.Error(), "no interface") {
		t.Error(err)
	}
}

func TestAddrFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "addr")
	for range 2 { // the second time over the first
		if err := WriteAddrFile(file, Addresses{{"listen", "127.0.0.1:1"}, {"admin", "127.0.0.1:2"}}); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil || string(text) != "listen=127.0.0.1:1\nadmin=127.0.0.1:2\n" {
		t.Errorf("%q %v", text, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Error("left over:", left)
	}
	if err := WriteAddrFile(filepath.Join(dir, "no", "addr"), nil); err == nil || !strings.Contains(err.Error(), "--addr-file") {
		t.Error(err)
	}
}

func TestCheckDir(t *testing.T) {
	dir := t.TempDir()
	parent := filepath.Join(dir, "a")
	if err := CheckDir("store", filepath.Join(parent, "b")); err == nil || !strings.Contains(err.Error(), "is the file system of "+parent+" mounted?") {
		t.Error("under a directory that is not there:", err)
	}
	if _, err := os.Stat(parent); err == nil {
		t.Error("a directory was made where a file system may be missing")
	}
	for range 2 {
		if err := CheckDir("store", parent); err != nil {
			t.Error(err)
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{file, filepath.Join(file, "under")} {
		if err := CheckDir("store", bad); err == nil || !strings.Contains(err.Error(), "--store "+bad) || !strings.Contains(err.Error(), "must be a directory") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if left, _ := os.ReadDir(parent); len(left) != 0 {
		t.Error("left over:", left)
	}
}

func TestLogger(t *testing.T) {
	var b bytes.Buffer
	log, err := NewLogger(&b, "json", "warn")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("unseen")
	log.Warn("seen", "n", 1)
	if s := b.String(); strings.Contains(s, "unseen") || !strings.Contains(s, `"msg":"seen","n":1}`) {
		t.Errorf("%q", s)
	}
	for _, bad := range [][2]string{{"xml", "info"}, {"text", "loud"}, {"text", "INFO+1"}, {"", ""}} {
		if _, err := NewLogger(&b, bad[0], bad[1]); !IsUsage(err) {
			t.Error(bad, err)
		}
	}
}

// The process's own signals, sent to itself: the first ends in order, the second at once.
func TestSignals(t *testing.T) {
	orderly, now, stop := Signals(t.Context())
	defer stop()
	kill := func(s syscall.Signal) {
		if err := syscall.Kill(os.Getpid(), s); err != nil {
			t.Fatal(err)
		}
	}
	await := func(ctx context.Context, want error) {
		t.Helper()
		select {
		case <-ctx.Done():
			if !errors.Is(context.Cause(ctx), want) {
				t.Error("cause:", context.Cause(ctx), "want", want)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("no signal came in")
		}
	}
	kill(syscall.SIGTERM)
	await(orderly, ErrSignal)
	if now.Err() != nil {
		t.Error("one signal ended it at once")
	}
	kill(syscall.SIGINT)
	await(now, ErrSecondSignal)
	stop()
	stop() // again is harmless
}

// The end of the parent is the first signal, not the second: what drains must be able to.
func TestSignalsParent(t *testing.T) {
	parent, cancel := context.WithCancel(t.Context())
	orderly, now, stop := Signals(parent)
	cancel()
	<-orderly.Done()
	if now.Err() != nil {
		t.Error("the parent's end ended it at once")
	}
	stop()
	if now.Err() == nil {
		t.Error("stop left a context behind")
	}
}

func TestHint(t *testing.T) {
	if Hint(nil, "x") != nil {
		t.Error("a hint made an error of nothing")
	}
	err := Hint(net.ErrClosed, "open it again")
	if !errors.Is(err, net.ErrClosed) || !strings.HasSuffix(err.Error(), "(open it again)") {
		t.Error(err)
	}
}

func TestHangups(t *testing.T) {
	reloads := make(chan struct{})
	stop := Hangups(func() { reloads <- struct{}{} })
	for range 2 {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		select {
		case <-reloads:
		case <-time.After(5 * time.Second):
			t.Fatal("nobody noticed")
		}
	}
	stop()
	stop()
}
