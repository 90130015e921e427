package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
)

// reading keeps the files of segments open for Read. A file that was removed meanwhile can still be read through it, but nobody has to: what is in it is dead.
type reading struct {
	mu    sync.Mutex
	files map[Segment]*shared
	clock uint64
}

// shared is a file that several goroutines read.
type shared struct {
	*os.File
	place place
	users int
	used  uint64 // when, by reading.clock
	gone  bool   // closed by the last user
}

// maxOpen bounds the files that Read keeps open.
const maxOpen = 32

// Read reads the record at a position again, into buf if it is large enough, and checks it again: a DamageError means that the disk does not have any more
// what was written there. The record must be durable, and something in it live. at.LSN may be 0 if it is not known. Read may be called from any goroutine
// until Close.
func (j *Journal) Read(at Position, buf []byte) (Record, error) {
	f, err := j.borrow(at.Segment)
	if err != nil {
		return Record{}, err
	}
	defer j.giveBack(f)
	bad := func(reason string) error {
		return &DamageError{File: j.disk.at(f.place.name()), Offset: at.Offset, From: at.LSN, To: at.LSN, Reason: reason}
	}
	buf = slices.Grow(buf[:0], readAhead)[:readAhead]
	n, err := f.ReadAt(buf, at.Offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return Record{}, fmt.Errorf("read record %d: %w", at.LSN, err)
	}
	if n < recordHeader {
		return Record{}, bad("the file is too short")
	}
	h, ok := parseHead(buf, f.place.epoch)
	if !ok || at.LSN != 0 && h.lsn != at.LSN {
		return Record{}, bad("the record's header is not what was written")
	}
	whole := recordHeader + h.size
	buf = slices.Grow(buf, max(0, whole-len(buf)))[:whole]
	if whole > n {
		if _, err := f.ReadAt(buf[n:], at.Offset+int64(n)); errors.Is(err, io.EOF) {
			return Record{}, bad("the file is too short")
		} else if err != nil {
			return Record{}, fmt.Errorf("read record %d: %w", at.LSN, err)
		}
	}
	if !checkSum(buf, seed(f.place.id, f.place.epoch)) {
		return Record{}, bad("the record's checksum is wrong")
	}
	at.LSN = h.lsn
	return Record{Position: at, Epoch: h.epoch, Type: h.typ, Size: h.size, Payload: buf[recordHeader:]}, nil
}

// readAhead is how much Read asks for at first: most records are no longer.
const readAhead = 4 << 10

// borrow returns the file of a segment of the log.
func (j *Journal) borrow(id Segment) (*shared, error) {
	j.mu.Lock()
	a := j.ledger.find(id)
	j.mu.Unlock()
	if a == nil {
		return nil, fmt.Errorf("read segment %d: it is no part of the log: %w", id, fs.ErrNotExist)
	}
	f, opened, err := j.reading.open(a.place, j.disk.at(a.name()))
	if err != nil {
		return nil, fmt.Errorf("read segment: %w", err)
	}
	if opened && !j.Stays(id) { // it went meanwhile, and forget did not see the file
		j.reading.forget([]*account{a})
	}
	return f, nil
}

// open returns the file of a segment, which the caller gives back, and whether it was opened for that.
func (r *reading) open(p place, path string) (f *shared, opened bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clock++
	f = r.files[p.id]
	if f == nil {
		file, err := os.Open(path)
		if err != nil {
			return nil, false, err
		}
		if r.files == nil {
			r.files = map[Segment]*shared{}
		}
		if len(r.files) >= maxOpen {
			r.evict()
		}
		f, opened = &shared{File: file, place: p}, true
		r.files[p.id] = f
	}
	f.users++
	f.used = r.clock
	return f, opened, nil
}

func (j *Journal) giveBack(f *shared) {
	r := &j.reading
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.users--; f.users == 0 && f.gone {
		f.Close()
	}
}

// evict closes the file that was not used for the longest time. The caller holds mu.
func (r *reading) evict() {
	var oldest *shared
	for _, f := range r.files {
		if oldest == nil || f.used < oldest.used {
			oldest = f
		}
	}
	r.drop(oldest)
}

func (r *reading) drop(f *shared) {
	if f == nil {
		return
	}
	delete(r.files, f.place.id)
	if f.gone = true; f.users == 0 {
		f.Close()
	}
}

// forget closes the files of segments that were deleted, lest they keep their space.
func (r *reading) forget(gone []*account) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range gone {
		r.drop(r.files[a.id])
	}
}

func (r *reading) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.files {
		r.drop(f)
	}
}
