//go:build race

package fencemodel

// few bounds what is explored under the race detector, which has nothing to find in one goroutine, and makes it ten times slower.
const few = 40_000
