package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// fleet is a store that has just been taken over, to which many sidecar sessions come back.
type fleet struct {
	s        *store
	log      *swallow
	sessions int
	each     int  // messages that a session holds
	queues   int  // they are spread over
	lost     int  // every so many messages was lost on its way; 0: none
	topics   bool // has a subscription to a topic beside

	ids map[journal.LSN]msgID
}

func (f *fleet) id(i int) sessionID { return sessionID{1, uint64(i)} }

func (f *fleet) queue(i int) string { return fmt.Sprintf("/queue/%d", i%f.queues) }

// holder is who was sent the nth message: they take turns.
func (f *fleet) message(i, n int) uint64 { return uint64(n*f.sessions + i + 1) }

// takeOver folds what the last owner has written.
func (f *fleet) takeOver(tb testing.TB) {
	f.s, f.log = benchStore()
	f.ids = map[journal.LSN]msgID{}
	rc := newRecovery(f.s)
	lsn := journal.LSN(0)
	visit := func(kind byte, payload []byte) {
		lsn++
		r := journal.Record{Position: journal.Position{LSN: lsn, Segment: 1, Offset: int64(lsn) * 256}, Epoch: 1, Size: len(payload), Type: kind, Payload: payload}
		if _, err := rc.visit(r); err != nil {
			tb.Fatal(err)
		}
	}
	for i := range f.sessions {
		c := &session{id: f.id(i), attempt: 1, hold: time.Minute}
		visit(recSession, appendSession(nil, c))
		visit(recSubscribe, appendSubscribe(nil, c, &subscription{id: "s", dest: f.queue(i), mode: ackEach, prefetch: 1000}))
		if f.topics {
			visit(recSubscribe, appendSubscribe(nil, c, &subscription{id: "t", dest: "/topic/t", mode: ackEach}))
		}
	}
	m := &message{data: []byte("k:v\n" + strings.Repeat("x", 100)), split: 4}
	for n := range f.each {
		for i := range f.sessions {
			o := origin{kind: byDirect, conn: 1}
			m.id = o.messageOf(1, f.message(i, n), false)
			visit(recSend, appendSend(nil, o, []byte(f.queue(i)), m))
			f.ids[lsn] = m.id
		}
	}
	f.log.lsn = lsn
	f.s.now = time.Now()
	rc.finish()
	f.s.advance(lsn)
	f.s.flush()
}

// back is the return of one session, with its claims. It returns what it is told.
func (f *fleet) back(i int) *peer {
	p, d := benchPeer(f.s, text("CONNECT", "accept-version:1.2", "understudy-session:"+f.id(i).String(), "understudy-attempt:2"))
	var all []string
	for n := range f.each {
		if at := f.message(i, n); f.lost == 0 || int(at)%f.lost != 0 {
			all = append(all, fmt.Sprintf("1-1-%d=1.1", at))
		}
	}
	frames := text("SUBSCRIBE", "id:s", "destination:"+f.queue(i), "ack:client-individual", "prefetch-count:1000", "receipt:r", claims(all...))
	if f.topics {
		frames += text("SUBSCRIBE", "id:t", "destination:/topic/t", "ack:client-individual", "receipt:t")
	}
	parser := frame.Parser{Version: frame.V12}
	feed(f.s, p, d, &parser, []byte(frames))
	f.s.advance(f.log.lsn)
	f.s.flush()
	return p
}

// load does what the loader does, without a disk.
func (f *fleet) load() {
	for list := f.s.take(4); len(list) > 0; list = f.s.take(4) {
		for _, e := range list {
			for i := range e.reads {
				r := &e.reads[i]
				r.content = content{id: f.ids[journal.LSN(r.pos>>placeBits)], data: make([]byte, 104), split: 4}
			}
			f.s.handIn(e)
			f.s.flush()
		}
	}
}

// BenchmarkFleet is what it takes the store, in processor time, to have 5,000 sessions back after a take-over, each with ten messages of which
// every eleventh was lost on its way and has to be given to somebody; of one queue, which all have shared, and of one queue for each.
func BenchmarkFleet(b *testing.B) {
	for _, queues := range []int{1, 5000} {
		b.Run(fmt.Sprintf("queues=%d", queues), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				f := &fleet{sessions: 5000, each: 10, queues: queues, lost: 11, topics: true}
				f.takeOver(b)
				b.StartTimer()
				for i := range f.sessions {
					f.back(i)
				}
				f.load()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/5000, "µs/session")
		})
	}
}

// Each claim is granted, to whoever it is, in whatever order sessions come back; what was lost on the way waits to be read.
func TestFleetComesBack(t *testing.T) {
	for _, queues := range []int{1, 7} {
		f := &fleet{sessions: 301, each: 10, queues: queues, lost: 10}
		f.takeOver(t)
		for n := range f.sessions {
			if out := string(f.back(n * 11 % f.sessions).out); strings.Contains(out, frame.HeaderGone) {
				t.Fatalf("a claim was not granted: %.200s", out)
			}
		}
		for i := range f.sessions {
			sub := f.s.sessions[f.id(i)].subs["s"]
			for h := sub.first; h != nil; h = h.next {
				if n := int(h.msg.id.n); (n-1)%f.sessions != i || n%f.lost == 0 {
					t.Fatalf("session %d holds message %d", i, n)
				}
			}
			if sub.held < f.each-2 {
				t.Fatalf("session %d holds %d messages", i, sub.held)
			}
		}
		if held, all := f.s.messages-f.s.outs, f.sessions*f.each; held != all-all/f.lost || f.s.messages != all {
			t.Fatalf("%d of %d messages are held", held, all)
		}
	}
}

// A claim does not look at what others looked at before: what was passed on the way to a message that was found is in the index.
func TestClaimsAreFoundInTheIndex(t *testing.T) {
	f := &fleet{sessions: 100, each: 10, queues: 1}
	f.takeOver(t)
	q := f.s.queues["/queue/0"]
	known := func(at uint64) bool {
		_, known := f.s.lookUp(q, f.s.hash(msgID{1, 1, at, fromDirect}), msgID{1, 1, at, fromDirect})
		return known
	}
	f.back(50) // its last message is the 951st
	for at := uint64(1); at <= 1000; at++ {
		if known(at) != (at <= 951) {
			t.Fatalf("message %d is known: %v", at, known(at))
		}
	}
	want := map[msgID]basis{{2, 2, 2, fromDirect}: {}}
	if found := f.s.find(q, want); len(found) > 0 || known(1000) {
		t.Fatal("what is nowhere has been found, or has filled the index")
	}
	for i := range f.sessions {
		if i != 50 {
			f.back(i)
		}
	}
	for _, h := range []*hold{f.s.sessions[f.id(3)].subs["s"].first} {
		m := h.msg
		f.s.drop(h)
		m.state = done
		f.s.remove(m)
		if found := f.s.find(q, map[msgID]basis{m.id: {}}); len(found) > 0 {
			t.Fatal("a message was found that is done")
		}
	}
	f.s.cfg.ReclaimWindow = 0
	f.s.tick()
	if len(q.index.at) > 0 || len(f.s.indexes) > 0 || q.lanes[0].indexed > 0 {
		t.Fatal("the index stays when nobody is expected any more")
	}
	f.s.index(q, q.lanes[0], 1<<60)
	indexed := len(q.index.at)
	f.s.cfg.MaxMemory = 10 * indexShare * indexOverhead
	f.s.unfilter()
	f.s.index(q, q.lanes[0], 1<<60)
	if indexed != 999 || len(q.index.at) != 10 {
		t.Fatalf("%d messages are in an index, and %d where memory is small", indexed, len(q.index.at))
	}
}
