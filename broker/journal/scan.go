package journal

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

const (
	windowBytes = 1 << 20
	firstWindow = 16 << 10
)

// window reads a file forward through one buffer. What at returns is borrowed until the next call. It reads little at first, and more with each
// time: often a header is all that is wanted, and when a store is taken over that is what the time goes into.
type window struct {
	src  io.ReaderAt
	size int64
	buf  []byte
	off  int64 // of buf[0] in the file
	ask  int   // octets to read at least, the next time
}

// at returns n octets at off, or fewer where the file ends.
func (w *window) at(off int64, n int) ([]byte, error) {
	n = int(max(0, min(int64(n), w.size-off)))
	if n == 0 {
		return nil, nil
	}
	if off < w.off || off+int64(n) > w.off+int64(len(w.buf)) {
		if err := w.load(off, n); err != nil {
			return nil, err
		}
	}
	return w.buf[off-w.off:][:n], nil
}

func (w *window) load(off int64, n int) error {
	w.ask = min(max(2*w.ask, firstWindow), windowBytes)
	want := int(min(int64(max(n, w.ask)), w.size-off))
	w.buf = slices.Grow(w.buf[:0], want)[:want]
	w.off = off
	got, err := w.src.ReadAt(w.buf, off)
	if got == want {
		return nil
	}
	w.buf = w.buf[:0]
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read at %d: %w", off, err)
}

// scanner walks the records of one segment.
type scanner struct {
	window
	place
	seed uint32
	off  int64 // of the next record
	next LSN   // its number
}

func newScanner(src io.ReaderAt, size int64, p place, buf []byte) *scanner {
	return &scanner{window: window{src: src, size: size, buf: buf[:0]}, place: p, seed: seed(p.id, p.epoch), off: segmentHeader}
}

// step reads the record at off, if it is whole and is the one that must come here, and moves behind it. ok is false at the end of the log and at
// damage: step cannot know which. The error is one of reading.
func (s *scanner) step() (h head, payload []byte, ok bool, err error) {
	h, payload, ok, err = s.read(s.off)
	if err != nil || !ok || h.lsn != s.next {
		return h, nil, false, err
	}
	s.off += int64(recordSize(h.size))
	s.next++
	return h, payload, true, nil
}

// read checks whether a whole record of this segment is at off.
func (s *scanner) read(off int64) (h head, payload []byte, ok bool, err error) {
	b, err := s.at(off, recordHeader)
	if err != nil || len(b) < recordHeader {
		return h, nil, false, err
	}
	h, ok = parseHead(b, s.epoch)
	if !ok || int64(recordSize(h.size)) > s.size-off {
		return h, nil, false, nil
	}
	b, err = s.at(off, recordHeader+h.size)
	if err != nil || !checkSum(b, s.seed) {
		return h, nil, false, err
	}
	return h, b[recordHeader:], true, nil
}

// beyond is what lies behind the point where a scan stopped.
type beyond struct {
	records int   // whole records
	last    LSN   // highest of them
	durable LSN   // highest that they prove synced
	end     int64 // offset behind the last octet that is not zero; 0 if there is none
}

// search looks for whole records at every place where one could begin, from off to the end of the file. A torn batch may leave some of its records
// and lose others before them; damage leaves records of later batches, whose durable LSN tells.
func (s *scanner) search(off int64) (b beyond, err error) {
	off = (off + 7) &^ 7
	for off < s.size {
		w, err := s.at(off, windowBytes/4)
		if err != nil {
			return b, err
		}
		if allZero(w) {
			off += int64(len(w))
			continue
		}
		stop := off + int64(len(w))
		for off < stop {
			n, err := s.probe(off, &b)
			if err != nil {
				return b, err
			}
			off += n
		}
	}
	return b, nil
}

// probe tries one place and says how far to go on.
func (s *scanner) probe(off int64, b *beyond) (int64, error) {
	w, err := s.at(off, 8)
	if err != nil {
		return 0, err
	}
	if !allZero(w) {
		b.end = off + int64(len(w))
	}
	h, _, ok, err := s.read(off)
	if err != nil || !ok {
		return 8, err
	}
	b.records++
	b.last, b.durable = max(b.last, h.lsn), max(b.durable, h.durable)
	n := int64(recordSize(h.size))
	b.end = off + n
	return n, nil
}
