// Package journal is the append-only segmented log under the paired broker, with its lock and its fencing.
package journal

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// LSN numbers records: 1, 2, 3, … over the whole life of a store, never used twice for different acknowledged records.
type LSN uint64

// Segment numbers segment files: 1, 2, 3, … over the whole life of a store.
type Segment uint64

// Record is one record as recovery reads it. Payload is borrowed until the visitor returns.
type Record struct {
	LSN     LSN
	Segment Segment
	Epoch   uint64
	Type    byte // the caller's, 1..127
	Payload []byte
}

// Entry is one record to append.
type Entry struct {
	Type    byte
	Payload []byte
	Account
}

// Account is what a record means for the life of segment files. A segment is deleted when nothing in it is live and every ending
// in it refers to a segment that is deleted already (else a deleted ending would resurrect what it ended).
type Account struct {
	Live int       // things in this record that keep its segment
	Ends []Segment // the segment of each thing that this record ends, one element per thing
}

// Options of a journal. The zero value of each field means the default in its comment.
type Options struct {
	SegmentBytes int64         // 64 MiB
	MaxRecord    int           // octets of payload; 16 MiB
	LockPoll     time.Duration // how often a candidate tries the lock; 2 ms
	Takeover     Takeover      // strict
	// TakeoverAfter is how long the owner's heart-beat in LOCK may stand still before a candidate with Takeover Kill ends the owner; 1 s.
	TakeoverAfter time.Duration
	Rank          int    // candidates with a higher rank wait Rank x 5 ms after the lock was seen free
	Node          string // who we are, for LOCK and logs

	// Head returns the entries that every segment must begin with (session snapshots), so that older segments can go. It is called
	// under Append, in the caller's goroutine, whenever an Append starts a new segment, and once by Open for the first.
	Head func() []Entry
	// Durable is called in the commit goroutine, without locks, each time a batch is synced and the epoch was found to be still ours: every record up to
	// through may be acknowledged.
	Durable func(through LSN)
	// Failed is called once, when the journal can never acknowledge again: fenced by a higher epoch (ErrFenced), or an I/O error.
	Failed func(err error)
	// Waiting is called once per change while Open waits for the lock: with what is known of the owner.
	Waiting func(o Owner)
	Logger  *slog.Logger
}

// Takeover says what a candidate may do about an owner that holds the lock and shows no life.
type Takeover uint8

// Ways to take over.
const (
	Strict Takeover = iota // wait for the lock, for ever
	Kill                   // same host: SIGKILL the owner by pidfd once its heart-beat has stood still for TakeoverAfter
)

// Owner is what LOCK says.
type Owner struct {
	Epoch  uint64
	Node   string
	PID    int
	Silent time.Duration // how long its heart-beat has stood still
}

// Errors.
var (
	ErrFenced  = errors.New("store was taken over by a higher epoch")
	ErrDamaged = errors.New("journal is damaged")
	ErrClosed  = errors.New("journal is closed")
	ErrTooBig  = errors.New("record exceeds the limit")
)

// Journal is an open journal that this process owns.
type Journal struct{}

// Open waits for the lock of dir (until ctx ends), claims the next epoch, recovers by calling visit for each record in LSN order, starts a
// new segment with Head's entries, and returns the running journal. visit returns the record's Account, as it was given to Append.
func Open(ctx context.Context, dir string, opt Options, visit func(Record) (Account, error)) (*Journal, error) {
	return nil, errors.ErrUnsupported
}

// Epoch is ours.
func (j *Journal) Epoch() uint64 { return 0 }

// Store is the UUID of the store in dir, made when it was created.
func (j *Journal) Store() string { return "" }

// Append copies e into the batch that is being filled and returns at once; Durable will say when it counts. Calls are serial: the caller holds
// its own lock, so that LSN order is the order of its decisions. The only errors are ErrTooBig, ErrClosed and what Failed was told.
func (j *Journal) Append(e Entry) (LSN, Segment, error) { return 0, 0, errors.ErrUnsupported }

// Pending is how many octets have been appended and are not durable yet: the caller's measure for back-pressure.
func (j *Journal) Pending() int64 { return 0 }

// Close syncs what is pending, stops, and releases the lock. It is the orderly end of an owner.
func (j *Journal) Close() error { return nil }
