//go:build linux

package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPowerCut cuts the power of real file systems under a process that writes: an image on a loop device is told to forget, at once, all that is not on the
// disk, its journal included (FS_IOC_SHUTDOWN, NOLOGFLUSH). What the process had acknowledged, which was written down elsewhere, is there after
// the next mount. It needs root.
func TestPowerCut(t *testing.T) {
	cuts := 2
	if *full {
		cuts = 40
	}
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("only root can mount an image")
			}
			if testing.Short() {
				t.Skip("it takes a second")
			}
			if _, err := exec.LookPath("mkfs." + fs); err != nil {
				t.Skip(err)
			}
			v := newVolume(t, fs)
			rng := newRand(t)
			var acked, most LSN
			for range cuts {
				acked += v.cut(rng, &most)
			}
			t.Logf("%d power cuts of %s, %d records acknowledged, up to %d unsynced ones kept, lost 0", cuts, fs, acked, most)
		})
	}
}

// volume is a file system in a file.
type volume struct {
	t             *testing.T
	fs, image, at string
	mounted       bool
}

func newVolume(t *testing.T, fs string) *volume {
	dir := t.TempDir()
	v := &volume{t: t, fs: fs, image: filepath.Join(dir, "image"), at: filepath.Join(dir, "mount")}
	if err := os.Mkdir(v.at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(v.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(v.image, 320<<20); err != nil { // the least that mkfs.xfs takes is 300 MiB
		t.Fatal(err)
	}
	v.run("mkfs."+fs, "-q", v.image)
	t.Cleanup(v.unmount)
	if err := v.mount(); err != nil {
		t.Skipf("cannot mount an image here: %v", err)
	}
	return v
}

func (v *volume) run(name string, args ...string) {
	v.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		v.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

// mount leaves the loop device to the kernel, which frees it with the mount.
func (v *volume) mount() error {
	out, err := exec.Command("mount", "-o", "loop", "-t", v.fs, v.image, v.at).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	v.mounted = true
	return nil
}

func (v *volume) unmount() {
	if !v.mounted {
		return
	}
	for try := 0; ; try++ {
		err := unix.Unmount(v.at, 0)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EBUSY) || try == 100 {
			v.t.Errorf("unmount %s: %v", v.at, err)
			unix.Unmount(v.at, unix.MNT_DETACH)
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	v.mounted = false
}

const (
	fsShutdown = 0x8004587d // FS_IOC_SHUTDOWN
	noLogFlush = 2
)

// cut has a process write, cuts the power, and looks at what is there.
func (v *volume) cut(rng *rand.Rand, most *LSN) LSN {
	t := v.t
	store := filepath.Join(v.at, "store")
	p := startHelper(t, store)
	p.said("acked ")
	time.Sleep(time.Duration(rng.IntN(60_000)) * time.Microsecond)
	canary := filepath.Join(v.at, "canary")
	if err := os.WriteFile(canary, []byte("never synced"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(v.at)
	if err != nil {
		t.Fatal(err)
	}
	err = unix.IoctlSetPointerInt(int(root.Fd()), fsShutdown, noLogFlush)
	root.Close()
	if err != nil {
		t.Skipf("%s cannot be shut down: %v", v.fs, err)
	}
	time.Sleep(5 * time.Millisecond) // it may not notice until it writes again
	p.kill()
	p.gone()
	acked := p.acked()
	v.unmount()
	if err := v.mount(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(canary); err == nil && len(b) > 0 && !allZero(b) {
		t.Fatalf("the power was not cut: %q is there, which was not synced", b)
	}
	os.Remove(canary)
	s, end, _ := audit(t, store, Options{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	sound(t, store)
	spoilt.Store(store, true) // it is gone before the cleanup looks
	if end < acked {
		t.Errorf("acknowledged %d, recovered %d", acked, end)
	}
	*most = max(*most, end-acked)
	if rng.IntN(4) == 0 { // the next one begins anew
		if err := os.RemoveAll(store); err != nil {
			t.Fatal(err)
		}
	}
	return acked
}
