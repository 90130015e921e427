package broker

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

// tape makes records as a sidecar's effects bring them: 1 KiB messages, each acknowledged when window others came behind it; never if that is 0.
type tape struct {
	window  uint64
	session sessionID
	queue   *queue
	m       *message
	payload []byte
	ends    []journal.Ending
}

func newTape(window uint64) *tape {
	m := &message{data: []byte("content-type:text/plain\n" + strings.Repeat("x", 1000)), split: 24}
	return &tape{window: window, session: mustSession(sessionX), queue: newPool().newQueue("/queue/bench"), m: m}
}

// each calls f with the entries that n messages make. It returns where the record lies.
func (p *tape) each(n uint64, f func(journal.Entry) journal.Position) {
	effect := uint64(0)
	var at ring[journal.Position]
	for i := range n {
		effect++
		o := origin{kind: bySession, session: p.session, effect: effect}
		p.m.id = o.messageOf(1, 0, false)
		p.payload = appendSend(p.payload[:0], o, []byte("/queue/bench"), p.m)
		home := f(journal.Entry{Type: recSend, Payload: p.payload, Front: p.m.front(p.payload), Account: journal.Account{Live: 1, Bytes: p.m.stored()}})
		if p.window == 0 {
			continue
		}
		if at.push(home); i < p.window {
			continue
		}
		effect++
		o.effect = effect
		acked := *p.m
		acked.home = at.pop()
		acked.lsn, acked.queue = acked.home.LSN, p.queue
		p.payload, p.ends = appendAcks(appendOrigin(p.payload[:0], o), p.ends[:0], []*message{&acked})
		f(journal.Entry{Type: recAck, Payload: p.payload, Account: journal.Account{Ends: p.ends}})
	}
}

// fold has a new recovery visit what n messages make.
func (p *tape) fold(tb testing.TB, n uint64) *recovery {
	s, _ := benchStore()
	rc := newRecovery(s)
	p.each(n, func(e journal.Entry) journal.Position {
		lsn := rc.last + 1
		at := journal.Position{LSN: lsn, Segment: 1, Offset: int64(lsn) * 1088}
		r := journal.Record{Position: at, Epoch: 1, Size: len(e.Payload), Type: e.Type, Payload: e.Payload}
		if e.Front > 0 {
			r.Payload = r.Payload[:e.Front]
		}
		if _, err := rc.visit(r); err != nil {
			tb.Fatal(err)
		}
		return at
	})
	return rc
}

// BenchmarkRecover folds records of 1 KiB messages: a backlog, and one of which most is acknowledged. The records are made meanwhile, which is
// measured alone and taken off.
func BenchmarkRecover(b *testing.B) {
	for _, with := range []struct {
		name   string
		window uint64
	}{{"sends", 0}, {"pairs", 1000}, {"alternating", 1}} {
		b.Run(with.name, func(b *testing.B) {
			const n = 200000
			p := newTape(with.window)
			records := 0
			made := time.Duration(0)
			for range 3 {
				began := time.Now()
				p.each(n, func(journal.Entry) journal.Position {
					records++
					return journal.Position{}
				})
				made += time.Since(began) / 3
			}
			records /= 3
			b.ReportAllocs()
			finish := time.Duration(0)
			for b.Loop() {
				rc := p.fold(b, n)
				began := time.Now()
				rc.finish()
				finish += time.Since(began)
			}
			b.ReportMetric(float64(records*b.N)/(b.Elapsed()-time.Duration(b.N)*made).Seconds(), "records/s")
			b.ReportMetric(float64(finish.Microseconds())/float64(b.N), "finish-µs")
		})
	}
}

// BenchmarkOpenRecover opens a real journal of 1 KiB messages and makes it ready to serve, as a server does that takes over without a warm copy.
func BenchmarkOpenRecover(b *testing.B) {
	for _, with := range []struct {
		name   string
		window uint64
	}{{"sends", 0}, {"pairs", 1000}} {
		b.Run(with.name, func(b *testing.B) {
			const n = 200000
			dir := b.TempDir()
			records := recordTape(b, dir, newTape(with.window), n)
			b.ResetTimer()
			for b.Loop() {
				s, _ := benchStore()
				rc := newRecovery(s)
				done := false
				log, err := journal.Open(b.Context(), dir, journal.Options{Head: func() []journal.Entry {
					if !done {
						rc.finish()
					}
					done = true
					return s.head()
				}}, rc.visit)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := log.Close(); err != nil {
					b.Fatal(err)
				}
				if want := int(n); with.window == 0 && s.messages != want {
					b.Fatalf("%d messages, want %d", s.messages, want)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(records*b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// recordTape writes a tape to a new journal and returns how many records that made.
func recordTape(tb testing.TB, dir string, p *tape, n uint64) (records int) {
	durable := make(chan journal.LSN, 1)
	log, err := journal.Open(tb.Context(), dir, journal.Options{Durable: func(through journal.LSN) {
		select {
		case <-durable:
		default:
		}
		durable <- through
	}}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	last := journal.LSN(0)
	p.each(n, func(e journal.Entry) journal.Position {
		for log.Pending() > 8<<20 {
			time.Sleep(time.Millisecond)
		}
		at, err := log.Append(e)
		for errors.Is(err, journal.ErrBehind) {
			time.Sleep(time.Millisecond)
			at, err = log.Append(e)
		}
		if err != nil {
			tb.Fatal(err)
		}
		last = at.LSN
		records++
		return at
	})
	for through := range durable {
		if through >= last {
			break
		}
	}
	if err := log.Close(); err != nil {
		tb.Fatal(err)
	}
	return records
}

// With a million messages a store is ready some milliseconds after its last record was read, and has a few octets of memory for each.
func TestRecoveryDoesNotEndWithTheBacklog(t *testing.T) {
	n := uint64(1000000)
	if testing.Short() {
		n = 100000
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	rc := newTape(0).fold(t, n)
	folded := time.Since(began)
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := float64(after.HeapAlloc-before.HeapAlloc) / float64(n)
	began = time.Now()
	rc.finish()
	took := time.Since(began)
	t.Logf("%d messages: folded in %v, %.1f octets each, finished in %v", n, folded.Round(time.Millisecond), each, took)
	if rc.store.messages != int(n) || rc.store.queues["/queue/bench"].count != int(n) {
		t.Fatalf("%d messages", rc.store.messages)
	}
	if took > 100*time.Millisecond { // some ms are what it should be, but the machine may be busy
		t.Errorf("it took %v", took)
	}
	if each > 48 {
		t.Errorf("%.1f octets for each message", each)
	}
}
