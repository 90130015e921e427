//go:build race

package sessiontest_test

// raced: the race detector costs tenfold and has nothing to find on one goroutine, so a sample is enough.
const (
	raced  = true
	stride = 7 // octets from cut to cut
)
