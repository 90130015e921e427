//go:build !linux

package broker

// unacknowledged is what only Linux tells; elsewhere what was written counts as under way for as long as anybody waits.
func (o *outlet) unacknowledged() int { return 1 }
