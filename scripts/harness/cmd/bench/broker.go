package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/understudy-mq/understudy/scripts/harness/bench"
)

// broker is measured against other brokers and against the disk.
type broker struct {
	common
	cases   []string
	against []string
}

func (s *broker) parse(args []string, errs io.Writer) error {
	f := s.flags("broker", errs)
	s.diskFlag(f)
	cases := f.String("cases", strings.Join(bench.Loads(), ","), "loads, with commas between them")
	against := f.String("against", strings.Join(bench.Others(), ","), "what ours is compared with, with commas between them")
	_, err := s.finish(f, args, map[string]string{"rounds": "2", "seconds": "0.2"})
	if err != nil {
		return err
	}
	if s.cases, err = among("-cases", *cases, bench.Loads()); err != nil {
		return err
	}
	s.against, err = among("-against", *against, bench.Others())
	return err
}

func (s *broker) run(ctx context.Context, out, errs io.Writer) (int, error) {
	for _, name := range s.against {
		if err := bench.Missing(name); err != nil {
			return misused, fmt.Errorf("%w, or leave it out with -against", err)
		}
	}
	return s.compare(ctx, out, errs, func(opt bench.Options) ([]bench.Versus, error) {
		opt.Cases = s.cases
		return bench.RunBroker(ctx, opt, s.against)
	})
}

// errInMemory says that a disk was measured that is none.
var errInMemory = errors.New("stores would lie in memory there, which is no disk: say -data DIR")

func (s *common) diskFlag(f *flag.FlagSet) {
	f.StringVar(&s.data, "data", "", "directory on the disk to be measured, in which all stores are made; the directory of temporary files, or else the current one, unless given")
}

// disk is a directory for all stores of a run that is not in memory.
func (s *common) disk() (string, error) {
	dirs := []string{s.data}
	if s.data == "" {
		dirs = []string{os.TempDir(), "."}
	}
	for _, dir := range dirs {
		if fileSystem(dir) != "tmpfs" {
			return filepath.Abs(dir)
		}
	}
	return "", fmt.Errorf("%s: %w", strings.Join(dirs, ", "), errInMemory)
}

// compare runs what compares ours with others on one disk, and reports.
func (s *common) compare(ctx context.Context, out, errs io.Writer, measure func(bench.Options) ([]bench.Versus, error)) (int, error) {
	parent, err := s.disk()
	if err != nil {
		return misused, err
	}
	opt, about, clean, err := s.newRun(ctx, parent, errs)
	if err != nil {
		return failed, err
	}
	defer clean()
	about.Data += " (" + opt.Data + ")"
	opt.Logf("all stores are in %s", opt.Data)
	lines, err := measure(opt)
	about.LoadTo = bench.LoadAverage()
	for i := range lines {
		lines[i].About = about
	}
	return report(s, out, errs, lines, func(w io.Writer, l []bench.Versus) error { return bench.WriteVersus(w, about, l) }, err)
}
