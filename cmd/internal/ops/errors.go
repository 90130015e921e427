// Package ops is what the commands of understudy share: errors with a hint for whoever has to act, listeners and the file that tells
// where they are, logging, the signals that end a process, and the probe by which a sidecar asks a broker what it is.
package ops

import (
	"errors"
	"fmt"
)

// UsageError is a command line that cannot work: which flag, what was wrong with its value, what to do. Its exit code is 2.
type UsageError struct {
	Flag  string // without dashes; "" when it is not about one
	Value string // as given; leave it empty for secrets
	Hint  string
}

func (e *UsageError) Error() string {
	switch {
	case e.Flag == "":
		return e.Hint
	case e.Value == "":
		return fmt.Sprintf("--%s: %s", e.Flag, e.Hint)
	}
	return fmt.Sprintf("--%s %q: %s", e.Flag, e.Value, e.Hint)
}

// hinted is an error that somebody can do something about.
type hinted struct {
	err  error
	hint string
}

// Hint adds to err what to do about it; nil stays nil.
func Hint(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &hinted{err, hint}
}

func (e *hinted) Error() string { return e.err.Error() + " (" + e.hint + ")" }
func (e *hinted) Unwrap() error { return e.err }

// IsUsage reports whether err is or wraps a UsageError.
func IsUsage(err error) bool {
	var u *UsageError
	return errors.As(err, &u)
}
