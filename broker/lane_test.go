package broker

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"

	"github.com/understudy-mq/understudy/broker/journal"
)

// first is what peek returns if it is there.
func (q *queue) first() *message {
	m, _ := q.peek()
	return m
}

func TestEntryIsSmallAndHasNoPointers(t *testing.T) {
	if n := unsafe.Sizeof(entry{}); n > 40 {
		t.Errorf("an entry has %d octets", n)
	}
	for f := range reflect.TypeFor[entry]().Fields() {
		if k := f.Type.Kind(); k < reflect.Int || k > reflect.Uint64 {
			t.Errorf("field %s is a %s", f.Name, k)
		}
	}
}

// laneModel is what a queue should be: messages by place, whatever pages they are in.
type laneModel struct {
	t       *rapid.T
	s       *store
	q       *queue
	n       uint64
	waiting []*modelled
	held    map[*message]*modelled
	reading []*errand
}

type modelled struct {
	id      msgID
	prio    int8
	pos     uint64
	home    journal.Position
	data    string
	returns int
}

func newLaneModel(t *rapid.T) *laneModel {
	s, _ := benchStore()
	s.slots = rapid.IntRange(1, 6).Draw(t, "slots")
	q := s.queue([]byte("/queue/a"))
	return &laneModel{t: t, s: s, q: q, held: map[*message]*modelled{}}
}

func (w *laneModel) insert(m *modelled) {
	i, _ := slices.BinarySearchFunc(w.waiting, m, func(a, b *modelled) int {
		return cmp.Or(int(b.prio)-int(a.prio), cmp.Compare(a.pos, b.pos))
	})
	w.waiting = slices.Insert(w.waiting, i, m)
}

func (w *laneModel) pick() *modelled {
	return w.waiting[rapid.IntRange(0, len(w.waiting)-1).Draw(w.t, "which")]
}

func (w *laneModel) pickHeld() *message {
	list := []*message{}
	for m := range w.held {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b *message) int { return cmp.Compare(a.pos, b.pos) })
	return list[rapid.IntRange(0, len(list)-1).Draw(w.t, "which")]
}

func (w *laneModel) push() {
	w.n++
	data := fmt.Sprintf("n:%d\nbody %d", w.n, w.n)
	m := &message{
		id: msgID{n: w.n}, prio: int8(rapid.SampledFrom([]int{0, 0, 0, 5, -4}).Draw(w.t, "priority")), lsn: journal.LSN(w.n), data: []byte(data),
		home: journal.Position{LSN: journal.LSN(w.n), Segment: 1, Offset: int64(8 * w.n)}, transient: rapid.IntRange(0, 9).Draw(w.t, "transient") == 0,
	}
	if m.transient {
		m.lsn = 0
		w.s.last = journal.LSN(w.n)
	}
	w.s.add(w.q, m)
	w.insert(&modelled{m.id, m.prio, m.pos, m.home, data, 0})
	w.s.through = max(w.s.through, journal.LSN(rapid.Uint64Range(uint64(w.s.through), w.n).Draw(w.t, "durable")))
}

func (w *laneModel) take(m *message, of *modelled) {
	i := slices.Index(w.waiting, of)
	w.waiting = slices.Delete(w.waiting, i, i+1)
	m.state = held
	m.hold = &hold{}
	w.held[m] = of
}

func (w *laneModel) page() *page {
	l := w.q.lanes[rapid.IntRange(0, len(w.q.lanes)-1).Draw(w.t, "lane")]
	if len(l.pages) == 0 {
		return nil
	}
	return l.pages[rapid.IntRange(0, len(l.pages)-1).Draw(w.t, "page")]
}

// read makes what the loader would read.
func (w *laneModel) read(e *errand) {
	for i := range e.reads {
		r := &e.reads[i]
		for _, m := range w.all() {
			if m.pos == r.pos {
				r.content = content{id: m.id, data: []byte(m.data)}
				if r.at.Segment != m.home.Segment || r.at.Offset != m.home.Offset {
					r.err = errors.New("moved")
				}
			}
		}
	}
}

func (w *laneModel) all() []*modelled {
	list := slices.Clone(w.waiting)
	for _, m := range w.held {
		list = append(list, m)
	}
	return list
}

// check compares the queue with the model.
func (w *laneModel) check() {
	t, q := w.t, w.q
	if q.count != len(w.waiting)+len(w.held) || w.s.messages != q.count {
		t.Fatalf("count is %d and %d, want %d and %d", q.count, w.s.messages, len(w.waiting), len(w.held))
	}
	want := w.all()
	slices.SortFunc(want, func(a, b *modelled) int { return cmp.Or(int(b.prio)-int(a.prio), cmp.Compare(a.pos, b.pos)) })
	i, outs, memory := 0, 0, int64(len(q.index.at))*indexOverhead
	q.each(func(at slot) {
		if i >= len(want) || at.page.pos(at.i) != want[i].pos {
			t.Fatalf("message %d is at %d, want %+v", i, at.page.pos(at.i), want)
		}
		if m := at.message(); m != nil {
			memory += m.size()
			if m.page != at.page || m.id != want[i].id || m.away != (m.data == nil) || !m.away && string(m.data) != want[i].data || m.octets() != len(want[i].data) {
				t.Fatalf("got %+v, want %+v", m, want[i])
			}
		} else {
			outs++
			memory += entryOverhead
			if e := at.entry(); e.hash != w.s.hash(want[i].id) || int(e.size) != len(want[i].data) {
				t.Fatalf("got %+v, want %+v", e, want[i])
			}
		}
		i++
	})
	if i != len(want) || outs != w.s.outs || memory != w.s.memory {
		t.Fatalf("%d messages, %d out, %d octets; want %d, %d, %d", i, w.s.outs, w.s.memory, len(want), outs, memory)
	}
	for _, l := range q.lanes {
		live, out := 0, 0
		for k, p := range l.pages {
			again := *p
			again.recount()
			if again.live != p.live || again.out != p.out || again.away != p.away || again.data != p.data {
				t.Fatalf("page %d has the sums %d %d %d %d, counted %d %d %d %d", k, p.live, p.out, p.away, p.data, again.live, again.out, again.away, again.data)
			}
			if p.live == 0 && k < len(l.pages)-1 && !p.reading {
				t.Fatalf("page %d is empty", k)
			}
			if p.data > 0 && (k >= l.hot || l.at == 0) {
				t.Fatalf("page %d has octets, and eviction looks at %d", k, l.hot)
			}
			live, out = live+p.live, out+p.out
		}
		if l.live != live || l.out != out {
			t.Fatalf("a lane counts %d and %d out, has %d and %d", l.live, l.out, live, out)
		}
	}
	m, at := q.peek()
	switch {
	case len(w.waiting) == 0:
		if m != nil || at.page != nil {
			t.Fatalf("next is %+v %+v, want none", m, at)
		}
	case m != nil:
		if m.id != w.waiting[0].id {
			t.Fatalf("next is %+v, want %+v", m, w.waiting[0])
		}
	case at.page == nil || at.page.pos(at.i) != w.waiting[0].pos || at.entry() == nil:
		t.Fatalf("next is in %+v, want %+v", at, w.waiting[0])
	}
}

// A queue hands out its ready messages by priority and in the order in which they came, whatever was taken, returned, removed, went out, moved and came in
// in between.
func TestQueueKeepsPlaces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newLaneModel(t)
		t.Repeat(map[string]func(*rapid.T){
			"push":  func(*rapid.T) { w.push() },
			"push2": func(*rapid.T) { w.push() },
			"dispatch": func(*rapid.T) {
				if m := w.q.first(); m != nil && !m.away {
					w.take(m, w.waiting[0])
				}
			},
			"claim": func(t *rapid.T) {
				if len(w.waiting) > 0 {
					of := w.pick()
					m := w.s.find(w.q, map[msgID]basis{of.id: {}, {hi: 7}: {}})[of.id]
					if m == nil {
						t.Fatalf("%+v is not found", of)
					}
					w.take(m, of)
				}
			},
			"put back": func(*rapid.T) {
				if len(w.held) > 0 {
					m := w.pickHeld()
					m.hold = nil
					w.q.putBack(m)
					w.insert(w.held[m])
					delete(w.held, m)
				}
			},
			"acknowledge": func(*rapid.T) {
				for range min(len(w.held), rapid.IntRange(1, 8).Draw(w.t, "many")) {
					m := w.pickHeld()
					delete(w.held, m)
					w.s.remove(m)
				}
			},
			"go out": func(t *rapid.T) {
				if len(w.q.lanes) > 0 {
					if p := w.page(); p != nil && !p.reading {
						w.s.putOut(p, rapid.Bool().Draw(t, "hard"))
					}
				}
			},
			"go out far": func(*rapid.T) {
				w.s.cfg.MaxMemory = 1
				w.s.paging.another()
				w.s.evict(5)
				w.s.cfg.MaxMemory = 1 << 30
			},
			"want": func(*rapid.T) {
				if len(w.q.lanes) > 0 {
					if p := w.page(); p != nil && p.absent() > 0 {
						w.s.want(p, nil)
					}
				}
			},
			"read": func(*rapid.T) {
				w.reading = append(w.reading, w.s.take(1)...)
				for _, e := range w.reading {
					w.read(e)
				}
			},
			"come in": func(*rapid.T) {
				if len(w.reading) > 0 {
					w.s.handIn(w.reading[0])
					w.reading = w.reading[1:]
					if w.q.damage != nil {
						t.Fatal(w.q.damage.detail)
					}
				}
			},
			"move": func(*rapid.T) {
				if len(w.waiting) > 0 {
					m := w.pick()
					m.home.Segment++
					if m.pos == placeOf(m.home.LSN, 0) && !w.q.lane(m.prio).rehome(m.pos, m.home) {
						t.Fatal("it is not there")
					}
				}
			},
			"": func(*rapid.T) { w.check() },
		})
	})
}

// What recovery does: entries come in order, some late ones in between, some end, some move.
func TestLaneOfEntries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newLaneModel(t)
		s, q := w.s, w.q
		late := map[uint64]bool{}
		expires := time.Time{}
		first := map[uint64]time.Time{}
		add := func(n uint64, insert bool) {
			m := &modelled{msgID{n: n}, int8(n % 2), placeOf(journal.LSN(n), 0), journal.Position{Segment: 1, Offset: int64(8 * n)}, fmt.Sprint(n), 0}
			e := s.newEntry(m.id, journal.LSN(n), 0, m.home, len(m.data), outRecovered)
			if e.lsn() != journal.LSN(n) || e.index() != 0 || e.home() != m.home {
				t.Fatalf("%+v became %+v", m, e)
			}
			expires = time.Time{}
			if rapid.IntRange(0, 3).Draw(t, "expires") == 0 {
				expires = time.UnixMilli(rapid.Int64Range(1, 100).Draw(t, "when"))
				first[m.pos] = expires
			}
			if l := q.lane(m.prio); insert {
				l.insertOut(e, expires)
			} else {
				l.pushOut(e, expires)
			}
			w.insert(m)
		}
		for n := range uint64(rapid.IntRange(1, 60).Draw(t, "messages")) {
			if rapid.IntRange(0, 4).Draw(t, "late") == 0 {
				late[n+1] = true
			} else {
				add(n+1, false)
			}
			if len(w.waiting) > 0 && rapid.IntRange(0, 2).Draw(t, "end") == 0 {
				m := w.pick()
				l := q.lane(m.prio)
				at, ok := l.find(m.pos)
				if !ok {
					t.Fatalf("%+v is not there", m)
				}
				l.end(at)
				delete(first, m.pos)
				w.waiting = slices.DeleteFunc(w.waiting, func(x *modelled) bool { return x == m })
				if _, ok := l.find(m.pos); ok {
					t.Fatalf("%+v is still there", m)
				}
			}
			w.check()
		}
		for n := range uint64(61) {
			if late[n] {
				add(n, true)
				w.check()
			}
		}
		for pos, at := range first {
			for _, l := range q.lanes {
				if s, ok := l.find(pos); ok && (s.page.deadline == nil || s.page.deadline.at.After(at)) {
					t.Fatalf("%d expires at %v, its page is looked at %+v", pos, at, s.page.deadline)
				}
			}
		}
		for _, m := range w.waiting {
			m.home.Segment = 9
			if !q.lane(m.prio).rehome(m.pos, m.home) || q.lane(m.prio).rehome(m.pos+1, m.home) {
				t.Fatal("a message moved that is not there, or did not")
			}
		}
		w.check()
	})
}
