//go:build !race

package sessiontest_test

const (
	raced  = false
	stride = 1
)
