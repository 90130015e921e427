//go:build !linux

package bench

import "errors"

func dropCache(string) error {
	return errors.New("drop a store from the page cache: not on this system")
}
