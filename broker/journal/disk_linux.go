package journal

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func fdatasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err == unix.EINTR { // interrupted before anything was reported; every other error is final
			continue
		}
		if err != nil {
			return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
		return nil
	}
}

func allocate(f *os.File, size int64) (ok bool, err error) {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case err == nil:
			return true, nil
		case err == unix.EINTR:
			continue
		case errors.Is(err, errors.ErrUnsupported):
			return false, nil
		}
		return false, &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
	}
}

// exists asks whether a name is in the directory now. Local file systems know; a network file system may remember that the name was absent, so the
// directory's own attributes are fetched afresh first, which makes it look the name up again if anything changed.
func (d *disk) exists(name string) (bool, error) {
	var st unix.Statx_t
	fd := int(d.dir.Fd())
	if err := statx(fd, "", unix.AT_EMPTY_PATH, &st); err != nil {
		return false, &os.PathError{Op: "statx", Path: d.path, Err: err}
	}
	switch err := statx(fd, name, unix.AT_SYMLINK_NOFOLLOW, &st); {
	case err == nil:
		return true, nil
	case err == unix.ENOENT:
		return false, nil
	default:
		return false, &os.PathError{Op: "statx", Path: d.at(name), Err: err}
	}
}

func statx(fd int, name string, flags int, st *unix.Statx_t) error {
	for {
		err := unix.Statx(fd, name, flags|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, st)
		if err != unix.EINTR {
			return err
		}
	}
}
