package journal

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// read reads every record of every segment, and makes the report of it.
func (c *checker) read(visit func(Record) error) error {
	c.progress(c.total / 2)
	var foul []Problem
	s, err := c.rec.survey(func(rec Record) error {
		c.progress(c.done + int64(recordSize(rec.Size)))
		if c.opt.Verify != nil && rec.Type < typeManifest {
			if err := c.opt.Verify(rec); err != nil {
				file := place{rec.Epoch, rec.Segment}.name()
				foul = append(foul, Problem{File: file, Offset: rec.Offset, From: rec.LSN, To: rec.LSN, Reason: err.Error()})
			}
		}
		if visit == nil {
			return nil
		}
		return visit(rec)
	})
	if err != nil {
		return err
	}
	c.survey = s
	for _, e := range s.chain {
		c.segment(e)
	}
	for _, b := range s.unsure {
		c.problem(b.problem())
	}
	for _, p := range s.strange {
		c.problem(Problem{File: p.name(), From: 1, Reason: "it is no segment of this store, and keeps recovery from finding the end of the log"})
	}
	c.report.Problems = append(c.report.Problems, foul...)
	if n := len(s.chain); n > 0 {
		c.report.First, c.report.Last = s.chain[0].first, s.chain[n-1].last
	}
	c.explain()
	c.tail()
	return c.rest()
}

// segment reports one.
func (c *checker) segment(e *examined) {
	r := c.report
	if c.report.Owner != nil && e.absent && c.verdict == nil {
		return // its owner deleted it while we read
	}
	if !e.absent {
		r.Segments = append(r.Segments, SegmentReport{
			File: e.name(), Segment: e.id, Epoch: e.epoch, First: e.first, Last: e.last, End: e.end, Size: e.size,
			Records: e.records, Own: e.own, Given: e.lost, Index: e.indexSaid, Octets: e.octets,
		})
	}
	r.Records += uint64(e.records)
	r.Given += uint64(e.lost)
	r.Octets += e.octets
	if r.Owner != nil && !e.sealed && c.verdict == nil {
		return // it is being written
	}
	for _, g := range e.gaps {
		c.problem(Problem{File: e.name(), Offset: g.off, End: g.end, From: g.from, To: g.to, Reason: g.reason, Hits: g.hits})
	}
}

// explain puts the verdict of recovery into words, if reading on did not.
func (c *checker) explain() {
	r := c.report
	if c.verdict != nil && (c.named || len(r.Problems) == 0) {
		var d *DamageError
		p := Problem{Reason: strings.TrimPrefix(c.verdict.Error(), ErrDamaged.Error()+": ")}
		if errors.As(c.verdict, &d) {
			p = Problem{File: filepath.Base(d.File), Offset: d.Offset, From: d.From, To: d.To, Reason: d.Reason}
		}
		if !slices.ContainsFunc(r.Problems, func(have Problem) bool {
			return have.File == p.File || p.File == "" || d != nil && have.From <= d.To && d.From <= have.To
		}) {
			r.Problems = append([]Problem{p}, r.Problems...)
		}
	}
	r.Verdict, r.Opens = Whole, c.verdict == nil && c.named
	if len(r.Problems) > 0 {
		r.Verdict = Damaged
	}
}

// tail reports what Open would cut. Beside an owner that is the batch that it is writing.
func (c *checker) tail() {
	r := c.report
	if r.Verdict == Damaged || r.Owner != nil {
		return
	}
	tell := func(f found, from int64) {
		if f.beyond.end <= from {
			return
		}
		t := &TailReport{File: f.place.name(), Offset: from, Octets: f.beyond.end - from, Records: f.beyond.records, From: c.rec.end.last + 1}
		t.To = max(f.beyond.last, t.From)
		if r.Tail == nil {
			r.Tail = t
		}
		r.Verdict = Torn
	}
	if c.rec.end.begun {
		tell(c.rec.end, c.rec.end.end)
	}
	for _, f := range c.rec.above {
		tell(f, 0)
	}
}

// rest reports the files that are no part of the log.
func (c *checker) rest() error {
	names, err := c.disk.list()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		_, epoch := parseEpoch(name)
		p, segment := parsePlace(name)
		if of, index := parseIndexName(name); index {
			p = of
		}
		switch {
		case epoch, name == storeFile, name == lockName, name == quarantineName, name == candidatesName, name == NameFile:
		case slices.ContainsFunc(c.survey.chain, func(e *examined) bool { return e.place == p }):
		case segment && c.report.Owner != nil && len(c.survey.chain) > 0 && c.survey.chain[len(c.survey.chain)-1].id < p.id:
			c.report.Prepared = append(c.report.Prepared, name)
		default:
			c.report.Litter = append(c.report.Litter, name)
		}
	}
	list, _ := os.ReadDir(c.disk.at(quarantineName))
	for _, f := range list {
		if info, err := f.Info(); err == nil {
			c.report.Quarantine = append(c.report.Quarantine, FileReport{File: filepath.Join(quarantineName, f.Name()), Octets: info.Size()})
		}
	}
	return nil
}
