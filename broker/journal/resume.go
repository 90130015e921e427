package journal

import (
	"errors"
	"io"
)

// resume finds where records go on behind damage at off, where number next belongs: at the first whole one, up to number last, that leaves the room that
// those before it must have taken. Where the damaged record still says how long it is, and its successor is there, nothing in between is looked at: its
// payload may hold anything, even records.
func (s *scanner) resume(off int64, next, last LSN) (to int64, lsn LSN, ok bool, err error) {
	b, err := s.at(off, recordHeader)
	if err != nil || len(b) < recordHeader {
		return 0, 0, false, err
	}
	if h, ok := parseHead(b, s.epoch); ok && h.lsn == next {
		to := off + int64(recordSize(h.size))
		if h, _, ok, err := s.read(to); err != nil || ok && h.lsn == next+1 {
			return to, next + 1, ok, err
		}
		if to == s.size && next == last {
			return to, next + 1, true, nil
		}
	}
	for p := (off + 15) &^ 7; p < s.size; {
		w, err := s.at(p, windowBytes/4)
		if err != nil {
			return 0, 0, false, err
		}
		if allZero(w) {
			p += int64(len(w))
			continue
		}
		for stop := p + int64(len(w)); p < stop; p += 8 {
			h, _, ok, err := s.read(p)
			if err != nil {
				return 0, 0, false, err
			}
			if ok && h.lsn > next && h.lsn <= last && (p-off)/recordHeader >= int64(h.lsn-next) {
				return p, h.lsn, true, nil
			}
		}
	}
	return 0, 0, false, nil
}

// patchy reads a file of which the medium may have lost sectors: they read as zeros, which is damage wherever it matters.
type patchy struct {
	src io.ReaderAt
	err error // the last error of reading
}

func (p *patchy) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.src.ReadAt(b, off)
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	p.err = err
	for at := 0; at < len(b); {
		step := min(len(b)-at, sectorSize-int((off+int64(at))%sectorSize))
		n, err := p.src.ReadAt(b[at:at+step], off+int64(at))
		if errors.Is(err, io.EOF) {
			return at + n, err
		}
		if err != nil {
			clear(b[at+n : at+step])
		}
		at += step
	}
	return len(b), nil
}
