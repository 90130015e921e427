package main

import (
	"context"
	"errors"
	"io"

	"github.com/understudy-mq/understudy/scripts/harness/bench"
)

// journal is measured against the disk, and by itself.
type journal struct {
	common
	records int
}

func (s *journal) parse(args []string, errs io.Writer) error {
	f := s.flags("journal", errs)
	s.diskFlag(f)
	f.IntVar(&s.records, "records", 1_000_000, "records, and messages, of the stores that are recovered")
	_, err := s.finish(f, args, map[string]string{"rounds": "2", "seconds": "0.25", "records": "100000"})
	if err == nil && s.records < 1 {
		err = errors.New("-records must be positive")
	}
	return err
}

func (s *journal) run(ctx context.Context, out, errs io.Writer) (int, error) {
	return s.compare(ctx, out, errs, func(opt bench.Options) ([]bench.Versus, error) { return bench.RunJournal(ctx, opt, s.records) })
}
