package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// opKind is what is about to be done to the disk.
type opKind uint8

const (
	opCreate opKind = iota
	opAllocate
	opWrite
	opSync // of a file
	opRename
	opRemove
	opSyncDir
	opMkdir
)

// op is one change to the store's directory. Options.before sees each of them first: tests record them to build every state that a crash could
// leave behind, or fail them.
type op struct {
	kind opKind
	name string // in the store's directory
	to   string // of a rename
	off  int64
	data []byte
	size int64 // to allocate
}

// disk is the store's directory. Every change goes through it.
type disk struct {
	path   string
	dir    *os.File
	before func(op) error
}

type file struct {
	*os.File
	name string
}

func openDisk(path string, before func(op) error) (*disk, error) {
	if before == nil {
		before = func(op) error { return nil }
	}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.Mkdir(filepath.Clean(path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) { // what it lies in may not be mounted
			return nil, fmt.Errorf("create store directory: %w", err)
		}
		if err := syncPath(filepath.Dir(path)); err != nil {
			return nil, fmt.Errorf("create store directory %s: %w", path, err)
		}
	case err != nil:
		return nil, fmt.Errorf("open store directory: %w", err)
	case !st.IsDir():
		return nil, fmt.Errorf("open store directory: %s is not a directory", path)
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open store directory: %w", err)
	}
	return &disk{path: path, dir: dir, before: before}, nil
}

func (d *disk) close() { d.dir.Close() }

func (d *disk) at(name string) string { return filepath.Join(d.path, name) }

// create makes a file that does not exist.
func (d *disk) create(name string) (*file, error) {
	if err := d.before(op{kind: opCreate, name: name}); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(d.at(name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &file{f, name}, nil
}

func (d *disk) open(name string) (*file, error) {
	f, err := os.Open(d.at(name))
	if err != nil {
		return nil, err
	}
	return &file{f, name}, nil
}

// reopen opens a file that exists to write into it.
func (d *disk) reopen(name string) (*file, error) {
	f, err := os.OpenFile(d.at(name), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &file{f, name}, nil
}

// allocate reserves octets, so that a full disk is met here and not in the middle of a batch. Where the file system cannot, ok is false.
func (d *disk) allocate(f *file, size int64) (ok bool, err error) {
	if err := d.before(op{kind: opAllocate, name: f.name, size: size}); err != nil {
		if errors.Is(err, errors.ErrUnsupported) {
			return false, nil
		}
		return false, err
	}
	return allocate(f.File, size)
}

func (d *disk) write(f *file, b []byte, off int64) error {
	if err := d.before(op{kind: opWrite, name: f.name, off: off, data: b}); err != nil {
		return err
	}
	_, err := f.WriteAt(b, off)
	return err
}

// sync makes the octets of f, and its size, durable. Its errors are ErrSync.
func (d *disk) sync(f *file) error {
	err := d.before(op{kind: opSync, name: f.name})
	if err == nil {
		err = fdatasync(f.File)
	}
	return unsynced(err)
}

// unsynced marks what a sync has said.
func unsynced(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrSync, err)
}

func (d *disk) rename(from, to string) error {
	if err := d.before(op{kind: opRename, name: from, to: to}); err != nil {
		return err
	}
	return os.Rename(d.at(from), d.at(to))
}

func (d *disk) remove(name string) error {
	if err := d.before(op{kind: opRemove, name: name}); err != nil {
		return err
	}
	err := os.Remove(d.at(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// syncDir makes the names in the directory durable. Its errors are ErrSync, unless the directory could not be opened, for then nothing was synced.
func (d *disk) syncDir() error {
	err := d.before(op{kind: opSyncDir})
	if err == nil {
		err = syncPath(d.path)
	}
	if isCrowded(err) {
		return err
	}
	return unsynced(err)
}

func (d *disk) mkdir(name string) error {
	if err := d.before(op{kind: opMkdir, name: name}); err != nil {
		return err
	}
	err := os.Mkdir(d.at(name), 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// replace puts a small file in place, whole or not at all.
func (d *disk) replace(name string, b []byte) error {
	tmp := name + ".tmp"
	if err := d.remove(tmp); err != nil {
		return err
	}
	f, err := d.create(tmp)
	if err != nil {
		return err
	}
	err = d.write(f, b, 0)
	if err == nil {
		err = d.sync(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := d.rename(tmp, name); err != nil {
		return err
	}
	return d.syncDir()
}

// writable says whether files can be made here, as far as that can be known without making one.
func (d *disk) writable() error {
	if err := unix.Access(d.path, unix.R_OK|unix.W_OK|unix.X_OK); err != nil {
		return &os.PathError{Op: "access", Path: d.path, Err: err}
	}
	return nil
}

func (d *disk) list() ([]string, error) {
	f, err := os.Open(d.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	// Some file systems have no fsync for directories; there a synced file's name is durable by itself or nothing can be done.
	if errors.Is(err, syscall.EINVAL) {
		err = nil
	}
	return errors.Join(err, f.Close())
}
