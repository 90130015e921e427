package journal

import (
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// LSN numbers records: 1, 2, 3, … over the whole life of a store, never used twice for different acknowledged records. The journal's own
// records (a list of segments, a deletion) take numbers too, so the caller's may have gaps.
type LSN uint64

// Segment numbers segment files: 1, 2, 3, … over the whole life of a store.
type Segment uint64

// Position is where a record lies. It stays true for the life of the segment.
type Position struct {
	LSN     LSN
	Segment Segment
	Offset  int64 // of the record's header in the segment's file
}

// Record is one record as it is read. Payload is borrowed: from recovery until the visitor returns, from Read until its buffer is used again.
type Record struct {
	Position
	Epoch   uint64
	Type    byte   // the caller's, 1..127
	Size    int    // octets of the whole payload
	Payload []byte // all of it; from recovery of a sealed segment it may be only its front (Entry.Front)
}

// Entry is one record to append.
type Entry struct {
	Type    byte // the caller's, 1..127; anything else is a programming error and panics
	Payload []byte
	// Front is how many octets of the payload recovery needs; 0 means all of them. Of a sealed segment, Open may show no more of the record than that.
	Front int
	// Reserve lets a record that brings something live use the space that is kept for a full disk, as every record may that brings nothing: it is one
	// by which space will come free, such as a move.
	Reserve bool
	Account
}

// Account is what a record means for the life of segment files. A segment is deleted when nothing in it is live and every ending
// in it refers to a segment that is deleted already (else a deleted ending would resurrect what it ended).
type Account struct {
	Live  int   // things in this record that keep its segment
	Bytes int64 // octets of those things together; 0 means those of the payload
	Ends  []Ending
	// Again names, for each ending that an earlier record told already and this one repeats, the segment of what was ended. It ends nothing, but for whoever
	// reads this record and not the earlier one: so it stays as long as that segment.
	Again []Segment
}

// Ending is what ends one thing: the segment of the record that brought it, and the octets that it counted for there.
type Ending struct {
	Segment Segment
	Bytes   int64
}

// Options of a journal. The zero value of each field means the default in its comment.
type Options struct {
	SegmentBytes int64         // 64 MiB; at least 8 KiB, rounded up to 4 KiB. A segment whose head is large grows beyond it
	MaxRecord    int           // octets of payload; 16 MiB, at most 256 MiB
	LockPoll     time.Duration // how often a candidate tries the lock; 2 ms
	Takeover     Takeover      // strict
	// TakeoverAfter is how long the owner's heart-beat in LOCK may stand still before a candidate with Takeover Kill ends the owner, 1 s, or one
	// with Lease takes the store from it, 10 s. At least 200 ms: the owner beats every 50 ms. For Lease it should be at least twice the time after
	// which a client's connection to a silent owner is given up: a client that still hears the old owner may get a message again from the new one.
	TakeoverAfter time.Duration
	Node          string // who we are, for LOCK, the other candidates and logs; at most 128 octets are kept. Each server has its own

	// Standing is called in Open's goroutine while it waits, at each look at a free lock and ten times a second: what the other candidates are to know of
	// us, by which all of them order themselves. The zero Standing.
	Standing func() Standing
	// Candidates is called while Open waits, at most ten times a second while the lock is held: who stands for the store, we included, in the order in
	// which they would take it over; when anything but a Beat has changed.
	Candidates func([]Candidate)
	// Turn is shared by the journals of one process. Open holds it from a call of Standing to Won, so that where two stores are free at one moment the
	// other one's Standing.Serves counts the first already. No code waits for it for long.
	Turn *sync.Mutex

	// Follow allows a warm copy: while Open waits for the lock, and is one of the first two of the candidates or an owner of the store, it calls visit for
	// what the owner makes durable, so that little is left to read when the lock is won. The price is the processor's time for each record, and a poll of
	// the owner's mark. A copy is given up when others have been before us for some seconds.
	Follow bool
	// Reset says, while Open waits or recovers: forget all that was visited, it is no state of this log; visit will be called from the beginning again.
	// Follow needs it.
	Reset func()
	// Copied is called while Open waits, at most ten times a second, when the warm copy has moved.
	Copied func(Copy)
	// Won is called once, when Open has the lock and begins to recover. Like Reset and Copied it is called in Open's goroutine. It is called with Turn
	// held, and from then on Standing should count this store in Serves.
	Won func()

	// Head returns the entries that every segment must begin with (session snapshots), so that older segments can go. It is called
	// under Append, in the caller's goroutine, whenever an Append starts a new segment, and once by Open for the first. It must not call
	// Append. A segment's head and the record whose Append started it are recovered together or not at all, so it does not matter
	// whether the snapshot shows that record's effect already.
	Head func() []Entry
	// Durable is called in the commit goroutine, without locks, each time a batch is synced and the epoch was found to be still ours: every record up to
	// through may be acknowledged. It may call Append and Pending, not Close.
	Durable func(through LSN)
	// Failed is called once, when the journal can never acknowledge again: fenced by a higher epoch (ErrFenced), or an I/O error. It may call Close.
	Failed func(err error)
	// Space is called with true when the disk became full (no file for a further segment could be made), and with false when that is over, or when there
	// is a file for want of which Append returned ErrBehind. While it is full Append returns ErrFull for records that bring something live, once the current
	// segment has no room for them. It is called without locks, in order, and may call Append, not Close.
	Space func(full bool)
	// Waiting is called once per change while Open waits for the lock: with what is known of the owner. A change is another owner, one that
	// fell silent (again each time the silence has doubled), one that shows life again.
	Waiting func(o Owner)
	// Concerns names whom a record concerns (its destinations), so that a DamageError can say whom it hits. It is called only when Open fails. The record
	// may be damaged, and its payload only its beginning: it says what it can make out, and nothing where it cannot.
	Concerns func(Record) []string
	// Tested says that this process has run the self-test of the store's disk before. It is not run again: whoever has handed a store over would
	// keep the disk busy just when the next owner needs it.
	Tested  bool
	Logger  *slog.Logger // none
	Metrics *Metrics     // none
	before  func(op) error
	flush   *probe // may be nil
	noLock  bool   // tests: claim the epoch without the lock
	hasty   bool   // tests: do not linger
}

// Takeover says what a candidate may do about an owner that holds the lock and shows no life.
type Takeover uint8

// Ways to take over.
const (
	Strict Takeover = iota // wait for the lock, for ever
	Kill                   // same host: SIGKILL the owner by pidfd once its heart-beat has stood still for TakeoverAfter
	Lease                  // any host: claim the next epoch in spite of the lock once the heart-beat has stood still for TakeoverAfter
)

// Owner is what LOCK says.
type Owner struct {
	Epoch  uint64 // 0 while it is still claiming one
	Node   string
	PID    int
	Admin  string        // its Standing.Admin; "" if there was no room for it
	Silent time.Duration // how long its heart-beat has stood still
}

// Errors.
var (
	ErrFenced  = errors.New("store was taken over by a higher epoch")
	ErrDamaged = errors.New("journal is damaged")
	ErrClosed  = errors.New("journal is closed")
	ErrTooBig  = errors.New("record exceeds the limit")
	ErrFull    = errors.New("disk is full")
	// ErrSync: the kernel could not make durable what it had taken, for whatever reason, a full disk included. It may have forgotten it by now, and say of the
	// next sync that all is well: nobody on this machine may rely on what is read of these files.
	ErrSync = errors.New("disk did not take what was written")
	// ErrBehind says that a record came before the file of the segment that it needs. Nothing is known to be wrong: Space(false) follows when the file
	// is there, or Space(true) if the disk turns out to be full. To whoever does not care about the difference it is an ErrFull.
	ErrBehind error = behindError{}
)

type behindError struct{}

func (behindError) Error() string        { return "the file of the next segment is still being made" }
func (behindError) Is(target error) bool { return target == ErrFull }

// Limits and periods that are no options.
const (
	defaultSegment = 64 << 20
	minSegment     = 8 << 10
	defaultRecord  = 16 << 20
	defaultPoll    = 2 * time.Millisecond
	defaultSilence = time.Second
	defaultLease   = 10 * time.Second
	minSilence     = 4 * beatEvery
	beatEvery      = 50 * time.Millisecond
	maxNode        = 128
	dropRoom       = 256 // octets at the end of a segment for records of what can be deleted
	firstBatch     = 64 << 10
	maxBatch       = 4 << 20 // a batch is one pwrite; only a segment's head or one large record may exceed it
)

// Journal is an open journal that this process owns.
type Journal struct {
	opt   Options
	log   *slog.Logger
	disk  *disk
	store uuid
	epoch uint64
	lock  *lockFile
	mark  *markFile

	pending atomic.Int64
	durable atomic.Uint64
	checked checked
	down    chan struct{} // closed when the commit goroutine has nothing left to do
	quit    chan struct{} // closed to stop the heart-beat
	workers sync.WaitGroup
	closing sync.Once

	stopBeat func()
	closeErr error

	others     observer // the heart-beat's, as the next
	lockless   bool     // LOCK is not ours, and we could not help it
	candidates atomic.Pointer[[]Candidate]

	mu      sync.Mutex
	work    sync.Cond // the commit goroutine waits here for batches
	chores  sync.Cond // the janitor waits here for segments to prepare and files to remove
	ready   sync.Cond // the commit goroutine waits here for the file of a new segment
	err     error     // why nothing can be appended any more
	closed  bool
	trouble error // what the heart-beat or the janitor found; the commit goroutine turns it into err

	cur     tip      // where the next record goes
	fill    *batch   // being filled
	full    []*batch // filled, in order
	free    []*batch // for reuse
	ledger  ledger
	indexed indexed
	jan     janitor
	stats   Stats
	shown   uint64 // of stats.Deleted, in the metrics

	reading reading

	// owned by the commit goroutine
	file *file // of the segment written last
	pace pace
}

// tip is the end of the log as Append sees it.
type tip struct {
	id      Segment
	seed    uint32
	off     int64 // end of the last record
	limit   int64 // roll rather than grow beyond
	next    LSN
	headEnd LSN   // last LSN of the opening group
	size    int64 // of the file
}

// Epoch is ours.
func (j *Journal) Epoch() uint64 { return j.epoch }

// Store is the UUID of the store in dir, made when it was created.
func (j *Journal) Store() string { return j.store.String() }

// Pending is how many octets have been appended and are not durable yet: the caller's measure for back-pressure.
func (j *Journal) Pending() int64 { return j.pending.Load() }

func (o Options) withDefaults() Options {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = defaultSegment
	}
	o.SegmentBytes = (max(o.SegmentBytes, minSegment) + pageSize - 1) &^ (pageSize - 1)
	if o.MaxRecord == 0 {
		o.MaxRecord = defaultRecord
	}
	o.MaxRecord = min(o.MaxRecord, maxPayload)
	if o.LockPoll <= 0 {
		o.LockPoll = defaultPoll
	}
	if o.TakeoverAfter <= 0 {
		o.TakeoverAfter = defaultSilence
		if o.Takeover == Lease {
			o.TakeoverAfter = defaultLease
		}
	}
	o.TakeoverAfter = max(o.TakeoverAfter, minSilence)
	o.Node = o.Node[:min(len(o.Node), maxNode)]
	if o.Node == "" {
		o.Node, _ = os.Hostname()
	}
	if o.Head == nil {
		o.Head = func() []Entry { return nil }
	}
	if o.Durable == nil {
		o.Durable = func(LSN) {}
	}
	if o.Failed == nil {
		o.Failed = func(error) {}
	}
	if o.Space == nil {
		o.Space = func(bool) {}
	}
	if o.Waiting == nil {
		o.Waiting = func(Owner) {}
	}
	if o.Standing == nil {
		o.Standing = func() Standing { return Standing{} }
	}
	if o.Candidates == nil {
		o.Candidates = func([]Candidate) {}
	}
	if o.Turn == nil {
		o.Turn = new(sync.Mutex)
	}
	if o.Copied == nil {
		o.Copied = func(Copy) {}
	}
	if o.Won == nil {
		o.Won = func() {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}
