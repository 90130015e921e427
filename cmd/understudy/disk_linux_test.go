package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// image is a file system in a file, whose disk can be made to fail.
type image struct {
	t        *testing.T
	file, at string
}

func newImage(t *testing.T, dir string, octets int64, options ...string) *image {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a file system whose disk fails")
	}
	m := &image{t, filepath.Join(dir, "image"), filepath.Join(dir, "at")}
	if err := os.Mkdir(m.at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(m.file, octets); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", append(options, "-q", m.file)...).CombinedOutput(); err != nil {
		t.Skipf("needs mkfs.ext4: %v: %s", err, out)
	}
	if err := m.mount(); err != nil {
		t.Skipf("cannot mount an image here: %v", err)
	}
	t.Cleanup(m.unmount)
	return m
}

func (m *image) mount() error {
	if out, err := exec.Command("mount", "-o", "loop", m.file, m.at).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (m *image) unmount() {
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = syscall.Unmount(m.at, 0); err == nil || err == syscall.EINVAL { // not mounted
			return
		}
	}
	m.t.Errorf("unmount %s: %v", m.at, err)
}

// fail has every write and sync from now on end in EIO. [FS_IOC_SHUTDOWN, without a last flush of the file system's own journal]
func (m *image) fail() {
	m.t.Helper()
	root, err := os.Open(m.at)
	if err != nil {
		m.t.Fatal(err)
	}
	defer root.Close()
	how := uint32(2)
	if _, _, no := syscall.Syscall(syscall.SYS_IOCTL, root.Fd(), 0x8004587d, uintptr(unsafe.Pointer(&how))); no != 0 {
		m.t.Skipf("the file system cannot be made to fail: %v", no)
	}
}

// A disk that fails ends the broker, for good and with the documented code: it confirms nothing more and tries nothing again. What it had confirmed is
// there when the disk is.
func TestFailedDiskEndsTheBroker(t *testing.T) {
	m := newImage(t, t.TempDir(), 64<<20)
	dir := filepath.Join(m.at, "store")
	b := launchBroker(t, dir, "--segment", "1MiB").serves()
	c := talk(t, b.addrs["listen"])
	idle := talk(t, b.addrs["listen"])
	go func() {
		for n := 0; c.trySend("SEND", "destination:/queue/a", fmt.Sprint("receipt:", n), fmt.Sprintf("=%d %s", n, strings.Repeat("x", 500))) == nil; n++ {
			if n%16 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	confirmed := 0
	for ; confirmed < 500; confirmed++ {
		c.expect("RECEIPT", "receipt-id", strconv.Itoa(confirmed))
	}
	m.fail()
	for {
		h, err := c.read(patience)
		if err == nil && h.command == "RECEIPT" { // of a sync that was over, or it is not there below
			confirmed++
			continue
		}
		if err != nil || h.headers["message"] != "store lost" {
			t.Errorf("got %v %v, want to hear that the store is lost", h, err)
		}
		break
	}
	if h, err := idle.read(patience); err != nil || h.headers["message"] != "store lost" {
		t.Errorf("another client got %v %v, want to hear that the store is lost", h, err)
	}
	c.nc.Close()
	idle.nc.Close()
	if code := b.exit(); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	if text := b.said(); !strings.Contains(text, "input/output error") || !strings.Contains(text, dir) {
		t.Errorf("it does not say what failed, and where:\n%s", text)
	}

	m.unmount()
	if err := m.mount(); err != nil {
		t.Fatal(err)
	}
	next := launchBroker(t, dir, "--segment", "1MiB").serves()
	d := talk(t, next.addrs["listen"])
	d.subscribe("s", "/queue/a", "client-individual", "prefetch-count:100000")
	for n, body := range d.bodies(200 * time.Millisecond) {
		if got, _, _ := strings.Cut(body, " "); got != strconv.Itoa(n) {
			t.Fatalf("got %.40q, want message %d", body, n)
		}
		confirmed--
	}
	if confirmed > 0 {
		t.Errorf("%d confirmed messages are gone", confirmed)
	}
	d.nc.Close()
	next.signal(syscall.SIGTERM) // the file system is to be free
	next.exit()
}

// A sync that fails, though the writes before it did not: the disk is a thin one, and what is behind it is full. The kernel has dropped what it could not
// write and would call the next sync a success.
func TestFailedSyncEndsTheBroker(t *testing.T) {
	if testing.Short() {
		t.Skip("the disk takes seconds to fail")
	}
	m := newImage(t, smallDisk(t, 12<<20), 64<<20, "-O", "^has_journal") // its own journal would fail first
	dir := filepath.Join(m.at, "store")
	b := launchBroker(t, dir, "--segment", "1MiB", "--full-timeout", "1m").serves() // that a segment cannot be made is not final
	c := talk(t, b.addrs["listen"])
	for deadline := time.Now().Add(patience); ; {
		c.send("SEND", "destination:/queue/a", "receipt:r", "="+strings.Repeat("x", 100<<10))
		h := c.expectOne("RECEIPT", "ERROR")
		if h.command == "ERROR" {
			if h.headers["message"] != "store lost" {
				t.Errorf("got %v, want to hear that the store is lost", h)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Skip("the kernel lets no sync fail here")
		}
	}
	c.nc.Close()
	if code := b.exit(); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	if text := b.said(); !strings.Contains(text[strings.LastIndex(text, "understudy: "):], "fdatasync") {
		t.Errorf("it does not say at last that a sync failed:\n%s", text)
	}
}
