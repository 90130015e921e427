package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// item is one word of a record's text. What a record of the tests means is told by its text alone:
//
//	+7         thing 7 is there
//	-7@3       thing 7, which lay in segment 3, has ended
//	>7@3       thing 7 was moved here from segment 3
//	~7@3       told again: thing 7 lies in segment 3 no more
//	#9         nine effects so far: the last is this record's, or (in the head of a segment) all are told elsewhere
//	|          behind it the bodies of the things that are brought
//
// Several words are a transaction.
type item struct {
	op byte
	id int
	at Segment
}

func parseItems(payload []byte) (items []item, bodies string, err error) {
	text, bodies, ok := strings.Cut(string(payload), "|")
	if !ok {
		return nil, "", fmt.Errorf("no text: %.40q", payload)
	}
	for _, w := range strings.Fields(text) {
		it := item{op: w[0]}
		if strings.IndexByte("+#", w[0]) >= 0 {
			_, err = fmt.Sscanf(w[1:], "%d", &it.id)
		} else {
			_, err = fmt.Sscanf(w[1:], "%d@%d", &it.id, &it.at)
		}
		if err != nil {
			return nil, "", fmt.Errorf("%q: %w", w, err)
		}
		items = append(items, it)
	}
	return items, bodies, nil
}

func (it item) String() string {
	if it.at == 0 {
		return fmt.Sprintf("%c%d", it.op, it.id)
	}
	return fmt.Sprintf("%c%d@%d", it.op, it.id, it.at)
}

// body is what thing id holds, which no other thing does.
func body(id int) string {
	n := int(uint32(id)*2654435761>>13) % 700
	word := fmt.Sprintf("%d.", id)
	return strings.Repeat(word, n/len(word)+1)
}

func weight(id int) int64 { return int64(len(body(id))) }

// payloadOf is the record's payload, and how much of it recovery needs.
func payloadOf(items []item) (payload []byte, front int) {
	var text, bodies strings.Builder
	for i, it := range items {
		if i > 0 {
			text.WriteByte(' ')
		}
		text.WriteString(it.String())
		if it.op == '+' || it.op == '>' {
			bodies.WriteString(body(it.id))
		}
	}
	text.WriteByte('|')
	return []byte(text.String() + bodies.String()), text.Len()
}

// state is what a prefix of the log leaves.
type state struct {
	alive map[int]Position // things, and the record that holds the body
	count int              // effects
}

func newState() state { return state{alive: map[int]Position{}} }

func (st state) clone() state { return state{maps.Clone(st.alive), st.count} }

func (st state) equal(other state) bool {
	return st.count == other.count && maps.EqualFunc(st.alive, other.alive, func(a, b Position) bool { return a == b })
}

// apply folds one record and says what it means for the life of segments. It is the same for one that is appended and one that is recovered: a
// record that is met again may end what is there, or what is not there any more.
func (st *state) apply(r Record) (a Account, err error) {
	items, bodies, err := parseItems(r.Payload)
	if err != nil {
		return a, err
	}
	want := ""
	for _, it := range items {
		w, alive := st.alive[it.id]
		end := func() {
			a.Ends = append(a.Ends, Ending{w.Segment, weight(it.id)})
			delete(st.alive, it.id)
		}
		switch it.op {
		case '+':
			if alive {
				return a, fmt.Errorf("thing %d began twice", it.id)
			}
		case '-':
			if alive {
				end()
			} else {
				a.Again = append(a.Again, it.at)
			}
		case '>':
			if alive {
				end()
			}
			if w.Segment != it.at {
				a.Again = append(a.Again, it.at)
			}
		case '~':
			if alive && w.Segment == it.at {
				end()
			} else {
				a.Again = append(a.Again, it.at)
			}
		case '#':
			st.count = max(st.count, it.id)
		}
		if it.op == '+' || it.op == '>' {
			a.Live++
			a.Bytes += weight(it.id)
			st.alive[it.id] = r.Position
			want += body(it.id)
		}
	}
	if r.Type == 1 && len(r.Payload) == r.Size && bodies != want {
		return a, fmt.Errorf("record %d of %v has other bodies than were written", r.LSN, items)
	}
	return a, nil
}

// holds checks the body of a thing as Read returned its record.
func (r Record) holds(id int) error {
	items, bodies, err := parseItems(r.Payload)
	if err != nil {
		return err
	}
	want, found := "", false
	for _, it := range items {
		if it.op == '+' || it.op == '>' {
			want += body(it.id)
			found = found || it.id == id
		}
	}
	if !found || bodies != want {
		return fmt.Errorf("record %d at %d of segment %d does not hold thing %d: %v", r.LSN, r.Offset, r.Segment, id, items)
	}
	return nil
}

// actor uses a journal as a broker does: things come and go, alone and together; the heads of segments carry a count; old segments are emptied by moving
// things and telling endings again; records are read back.
type actor struct {
	rng    *rand.Rand
	s      *store
	state  state
	ids    int
	count  int // effects decided, those not appended yet included, as a caller's snapshot may show them
	log    []told
	moving *evacuation
	failed error // of an Append
	stale  bool  // another may own the store by now, and delete what this one still needs

	groups, reads, moves, again, refused int
	evacuated                            []Segment
}

// told is a record that was appended, and what it meant.
type told struct {
	Record
	means Account
}

// evacuation empties a segment.
type evacuation struct {
	seg  Segment
	todo []item
}

func newActor(rng *rand.Rand) *actor { return &actor{rng: rng, state: newState()} }

// head is the Options.Head of the journal.
func (a *actor) head() []Entry {
	return []Entry{{Type: 2, Payload: fmt.Appendf(nil, "#%d|", a.count)}, {Type: 2, Payload: []byte("|" + strings.Repeat("s", 150))}}
}

// put appends a record that says all this.
func (a *actor) put(items ...item) (Position, bool) {
	reserve := len(items) > 0 && items[0].op == '>'
	effect := len(items) > 0 && items[0].op == '+' && len(items) > 1 // a transaction; so that in most segments only the head knows the count
	if effect {
		a.count++
		items = append(items, item{op: '#', id: a.count})
	}
	payload, front := payloadOf(items)
	r := Record{Type: 1, Size: len(payload), Payload: payload}
	dry := a.state.clone()
	account, err := dry.apply(r)
	if err != nil {
		a.s.t.Fatal(err)
	}
	r.Position, err = a.s.Append(Entry{Type: 1, Payload: payload, Front: front, Reserve: reserve, Account: account})
	if err != nil {
		if effect {
			a.count--
		}
		a.failed = err
		return r.Position, false
	}
	a.state.apply(r)
	r.Payload = payload[:front]
	a.log = append(a.log, told{r, account})
	return r.Position, true
}

// run does n random things, and waits for a batch now and then. It ends early where the journal does.
func (a *actor) run(n int) {
	for range n {
		switch p := a.rng.IntN(100); {
		case p < 10:
			a.evacuate()
		case p < 15:
			a.read()
		case p < 22:
			a.group()
		case len(a.state.alive) > 0 && (p < 58 || len(a.state.alive) > 40):
			a.put(a.end(a.any()))
		default:
			a.put(a.begin())
		}
		if errors.Is(a.failed, ErrFull) {
			a.refused++
			a.failed = nil
		}
		if a.failed != nil {
			return
		}
		if a.rng.IntN(3) == 0 {
			a.settle()
		}
	}
}

// settle waits until all that was appended is acknowledged, or will never be, or not before there is space.
func (a *actor) settle() {
	if n := len(a.log); n > 0 {
		last := a.log[n-1].LSN
		a.s.until("batch", func() bool { return max(a.s.acked, a.s.base-1) >= last || len(a.s.failed) > 0 || a.s.full })
	}
}

func (a *actor) begin() item {
	a.ids++
	return item{op: '+', id: a.ids}
}

func (a *actor) end(id int) item { return item{'-', id, a.state.alive[id].Segment} }

// any is a thing that is alive, mostly one of the oldest: queues are.
func (a *actor) any() int {
	keys := slices.Sorted(maps.Keys(a.state.alive))
	if a.rng.IntN(4) > 0 {
		keys = keys[:min(len(keys), 6)]
	}
	return pick(a.rng, keys)
}

func (a *actor) group() {
	var items []item
	for range 1 + a.rng.IntN(3) {
		items = append(items, a.begin())
	}
	for _, id := range a.rng.Perm(a.ids + 1)[:min(a.ids, 8)] {
		if _, ok := a.state.alive[id]; ok && len(items) < 5 {
			items = append(items, a.end(id))
		}
	}
	if _, ok := a.put(items...); ok {
		a.groups++
	}
}

// read reads a thing's record back.
func (a *actor) read() {
	a.s.mu.Lock()
	durable := max(a.s.acked, a.s.base-1)
	a.s.mu.Unlock()
	for id, at := range a.state.alive {
		if at.LSN > durable {
			continue
		}
		r, err := a.s.Read(at, nil)
		if err == nil {
			err = r.holds(id)
		}
		if err == nil && r.Position != at {
			err = fmt.Errorf("asked for %+v, read %+v", at, r.Position)
		}
		if err != nil && !(a.stale && errors.Is(err, fs.ErrNotExist)) {
			a.s.t.Errorf("thing %d: %v", id, err)
		}
		a.reads++
		return
	}
}

// sealed lists the segments that could be emptied now.
func (s *store) sealed() (ids []Segment) {
	s.Journal.mu.Lock()
	defer s.Journal.mu.Unlock()
	for _, a := range s.ledger.list {
		if a.closed && a.last <= LSN(s.Journal.durable.Load()) {
			ids = append(ids, a.id)
		}
	}
	return ids
}

// evacuate goes one step on in emptying a segment, or begins to empty one: that which the journal proposes, or any.
func (a *actor) evacuate() {
	if a.moving == nil {
		seg, ok := a.s.Sparse()
		if sealed := a.s.sealed(); len(sealed) > 0 && (!ok || a.rng.IntN(2) == 0) {
			seg, ok = pick(a.rng, sealed), true
		}
		if !ok {
			return
		}
		a.moving = &evacuation{seg: seg, todo: a.scan(seg)}
	}
	var items []item
	for len(a.moving.todo) > 0 && len(items) < 4 {
		it := a.moving.todo[0]
		a.moving.todo = a.moving.todo[1:]
		w, alive := a.state.alive[it.id]
		switch {
		case it.op == '>' && (!alive || w.Segment != a.moving.seg): // ended or moved since
		case it.op == '~' && !a.s.Stays(it.at): // gone since, and cannot come back
		default:
			items = append(items, it)
		}
	}
	if len(items) > 0 {
		if _, ok := a.put(items...); ok {
			a.tally(items)
		} else { // refused: the segment is not empty, and must not be taken for it
			a.moving = nil
		}
		return
	}
	a.s.Forwarded(a.moving.seg)
	a.evacuated = append(a.evacuated, a.moving.seg)
	a.moving = nil
}

// scan lists what has to be said elsewhere before a segment can go.
func (a *actor) scan(seg Segment) (todo []item) {
	var last LSN
	err := a.s.Scan(seg, func(r Record) error {
		if r.LSN <= last || r.Segment != seg || r.Size != len(r.Payload) {
			return fmt.Errorf("record %d at %+v, of %d octets, follows %d", r.LSN, r.Position, r.Size, last)
		}
		last = r.LSN
		items, bodies, err := parseItems(r.Payload)
		want := ""
		for _, it := range items {
			if it.op == '+' || it.op == '>' {
				todo = append(todo, item{'>', it.id, seg})
				want += body(it.id)
			}
			if it.at != 0 && it.at != seg {
				todo = append(todo, item{'~', it.id, it.at})
			}
		}
		if err == nil && r.Type == 1 && bodies != want {
			err = fmt.Errorf("record %d of segment %d has other bodies than were written", r.LSN, seg)
		}
		return err
	})
	if err != nil && !(a.stale && errors.Is(err, fs.ErrNotExist)) {
		a.s.t.Errorf("scan segment %d: %v", seg, err)
	}
	return todo
}

func (a *actor) tally(items []item) {
	for _, it := range items {
		if it.op == '>' {
			a.moves++
		} else {
			a.again++
		}
	}
}

// through is the state after all records up to lsn.
func (a *actor) through(lsn LSN) state {
	st := newState()
	for _, r := range a.log {
		if r.LSN > lsn {
			break
		}
		st.apply(r.Record)
	}
	return st
}
