package ops

import (
	"io"
	"log/slog"
)

// NewLogger makes the process's logger: one line per event on w. format is text or json; level debug, info, warn or error.
func NewLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var at slog.Level
	switch level {
	case "debug", "info", "warn", "error":
		if err := at.UnmarshalText([]byte(level)); err != nil {
			return nil, err
		}
	default:
		return nil, &UsageError{"log-level", level, "must be debug, info, warn or error"}
	}
	opts := &slog.HandlerOptions{Level: at}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, &UsageError{"log-format", format, "must be text or json"}
}
