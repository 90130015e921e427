package main

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/understudy-mq/understudy/scripts/harness/bench"
)

// journal is measured against the disk, and by itself.
type journal struct {
	common
	records int
	cases   []string
}

func (s *journal) parse(args []string, errs io.Writer) error {
	f := s.flags("journal", errs)
	s.diskFlag(f)
	f.IntVar(&s.records, "records", 1_000_000, "records, and messages, of the stores that are recovered")
	cases := f.String("cases", strings.Join(bench.Parts(), ","), "what is measured, with commas between them")
	_, err := s.finish(f, args, map[string]string{"rounds": "2", "seconds": "0.25", "records": "100000"})
	if err != nil {
		return err
	}
	if s.records < 1 {
		return errors.New("-records must be positive")
	}
	s.cases, err = among("-cases", *cases, bench.Parts())
	return err
}

func (s *journal) run(ctx context.Context, out, errs io.Writer) (int, error) {
	return s.compare(ctx, out, errs, func(opt bench.Options) ([]bench.Versus, error) {
		opt.Cases = s.cases
		return bench.RunJournal(ctx, opt, s.records)
	})
}
