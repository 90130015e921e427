//go:build !linux

package journal

import (
	"errors"
	"io/fs"
	"os"
)

func fdatasync(f *os.File) error { return f.Sync() }

func allocate(*os.File, int64) (ok bool, err error) { return false, nil }

func (d *disk) exists(name string) (bool, error) {
	_, err := os.Lstat(d.at(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
