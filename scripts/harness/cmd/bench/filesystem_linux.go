package main

import "syscall"

// fileSystem says whether a directory is in memory.
func fileSystem(dir string) string {
	const tmpfs = 0x01021994 // statfs(2)
	var s syscall.Statfs_t
	switch err := syscall.Statfs(dir, &s); {
	case err != nil:
		return "unknown"
	case s.Type == tmpfs:
		return "tmpfs"
	}
	return "disk"
}
