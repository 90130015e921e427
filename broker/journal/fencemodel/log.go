package fencemodel

import "slices"

// scope bounds what is enumerated. Everything in it is.
type scope struct {
	rules
	servers, epochs, files, records, messages int

	batch   uint8 // records that are written at once, at most
	crashes uint8 // processes that end anywhere; what they wrote is kept
	cuts    uint8 // power cuts: all servers end, and what was not synced is kept or lost
	rolls   uint8 // segments that are begun behind others of their owner
	consume bool  // messages are delivered and acknowledged, and segments deleted
	follow  bool  // candidates keep a warm copy
	release bool  // owners hand over in good order
	race    bool  // looking for the highest epoch and making the next are two steps; else one, since disk.create finds out anyway
	apart   bool  // each server is a machine: others see what it wrote when that was synced, or sooner by luck; when it dies the rest is lost
	settled bool  // it begins with an owner in epoch 1, not with an empty directory
}

// logState is a state of the store and of all servers.
type logState struct {
	store
	servers              [maxServers]server
	crashes, cuts, rolls uint8 // that are left
	broken               string
}

func (sc *scope) start() logState {
	s := logState{crashes: sc.crashes, cuts: sc.cuts, rolls: sc.rolls}
	if !sc.settled {
		return s
	}
	alone := scope{rules: sc.rules, servers: 1, epochs: 1, files: 1, records: 1}
	for s.servers[0].at != serving {
		alone.next(&s, func(by step, after logState) {
			if by.what != "dies" && by.server != 0 {
				s = after
			}
		})
	}
	return s
}

// turn is a server's step that is being taken: the successor state, and how to say that it is complete.
type turn struct {
	sc *scope
	*logState
	s    *server
	n    int
	emit func(step, logState)
}

func (t *turn) done(what string, arg int) {
	t.emit(step{what, int8(t.n + 1), int8(arg)}, *t.logState)
}

func (t *turn) violate(why string) {
	if t.broken == "" {
		t.broken = why
	}
}

func (sc *scope) next(s *logState, emit func(step, logState)) {
	idle := true
	for i := range sc.servers {
		me := &s.servers[i]
		// try has the server do one thing in a state of its own.
		try := func(do func(*turn)) {
			after := *s
			do(&turn{sc: sc, logState: &after, s: &after.servers[i], n: i, emit: emit})
		}
		switch me.at {
		case waiting:
			if idle || sc.follow { // servers that wait and know nothing are alike
				if int(s.top()) < sc.epochs {
					try((*turn).begin)
				}
				if sc.follow {
					sc.followers(s, me, try)
				}
			}
			idle = idle && me.copy != (warm{})
		case taking:
			try((*turn).take)
		case committing:
			try((*turn).commitStep)
		case serving:
			sc.owner(s, me, try)
		case fenced:
			if me.due == 0 {
				try(func(t *turn) { t.leave("steps back") })
			}
		}
		for k := range sc.files {
			if me.due&(1<<k) != 0 {
				try(func(t *turn) { t.unlink(k) })
			}
		}
		if k := me.current; sc.apart && k > 0 && s.files[k-1].synced < s.files[k-1].written {
			try(func(t *turn) {
				f := &t.files[k-1]
				f.synced++
				t.done("has its system write back record", int(f.synced))
			})
		}
		if me.at != waiting && s.crashes > 0 {
			try(func(t *turn) { t.crashes--; t.leave("dies") })
		}
	}
	if s.cuts > 0 {
		sc.powerCut(s, emit)
	}
}

// owner is what one that serves may do next.
func (sc *scope) owner(s *logState, me *server, try func(func(*turn))) {
	room := int(me.records) < sc.records && me.records-me.durable < sc.batch
	for m := 1; room && m <= sc.messages; m++ {
		switch {
		case me.known&(1<<m) == 0 && (m == 1 || s.sent&(1<<(m-1)) != 0):
			try(func(t *turn) {
				t.append(uint8(m))
				t.s.known |= 1 << m
				t.sent |= 1 << m
				t.done("appends message", m)
			})
		case sc.consume && me.alive(&s.store, true)&(1<<m) != 0 && me.alive(&s.store, false)&(1<<m) != 0:
			try(func(t *turn) {
				t.append(recEnd + uint8(m))
				t.s.over |= 1 << m
				t.done("appends the end of message", m)
			})
		}
	}
	for k := range sc.files {
		if room && sc.consume && me.ends[k] > 0 && me.mayGo(&s.store, k, sc.careless) {
			try(func(t *turn) { t.drop(k) })
		}
	}
	if me.records > me.durable {
		try(func(t *turn) {
			t.s.to, t.s.at, t.s.pc = t.s.records, committing, 0
			t.commitStep()
		})
		return
	}
	if s.rolls > 0 && me.spare == 0 && me.records > 1 { // Journal.mustRoll: it holds a record behind its head
		try(func(t *turn) {
			if n, ok := t.create(t.s.epoch, sc.files); ok { // the janitor's Journal.provide
				t.s.spare = uint8(n + 1)
				t.rolls--
				t.done("makes a file for its next segment, number", n)
			}
		})
	}
	if me.spare > 0 {
		try((*turn).roll)
	}
	if sc.release && me.due == 0 {
		try(func(t *turn) { t.leave("hands over") }) // Journal.Close: all is durable
	}
}

func (t *turn) append(rec uint8) {
	t.files[t.s.current-1].records[t.s.records] = rec
	t.s.records++
}

// drop is Journal.drop: the ledger forgets the segment at once, the file goes later.
func (t *turn) drop(k int) {
	t.append(recDrop + uint8(k))
	t.s.ends[k] = 0
	t.s.doomed[k] = t.s.records
	if t.sc.hasty {
		t.s.doomed[k], t.s.due = 0, t.s.due|1<<k
	}
	t.done("appends that a segment may go, number", k)
}

// roll is Journal.roll: the list in the new segment leaves out what may go.
func (t *turn) roll() {
	s := t.s
	old, next := s.current-1, s.spare-1
	s.ends[old] = s.durable
	for k := range t.files {
		if t.sc.consume && s.ends[k] > 0 && t.mayGo(k) {
			s.ends[k], s.doomed[k] = 0, 1
		}
	}
	t.open(next, old+1, t.files[old].first+s.durable)
	s.spare = 0
	t.done("begins its next segment, number", int(next))
}

func (t *turn) mayGo(k int) bool { return t.s.mayGo(&t.store, k, t.sc.careless) }

// open fixes what the opening group of a segment says: Journal.begin.
func (t *turn) open(n, before, first uint8) {
	f, s := &t.files[n], t.s
	if before > 0 {
		s.past[before-1] = first - t.files[before-1].first
	}
	f.past = s.past
	f.first, f.before, f.ends, f.head, f.over = first, before, s.ends, s.known, s.over
	f.records[0] = recBegin
	s.current, s.records, s.durable, s.to, s.at, s.pc = n+1, 1, 0, 1, committing, 0
}

// unlink is disk.remove in Journal.sweep.
func (t *turn) unlink(k int) {
	t.s.due &^= 1 << k
	t.remove(k)
	for i := range t.servers {
		o := &t.servers[i]
		if o.epoch > t.s.epoch && o.reads && !o.late && (o.ends[k] > 0 || int(o.current) == k+1) {
			t.violate("an owner of a lower epoch deletes a segment that its successor's log needs")
		}
	}
	t.done("unlinks segment", k)
}

func (t *turn) remove(k int) {
	t.files[k].name = gone
	if t.cuts > 0 {
		t.files[k].name = unlinked
	}
}

// leave ends what the server has in memory: of what it appended, only what it wrote is left.
func (t *turn) leave(what string) {
	if k := t.s.spare; k > 0 && what != "dies" { // closeAndRemove in Journal.stop
		t.remove(int(k - 1))
	}
	t.sc.forget(t.logState, t.s)
	t.done(what, 0)
}

func (sc *scope) forget(s *logState, me *server) {
	for _, k := range []uint8{me.current, me.spare} {
		if k > 0 {
			f := &s.files[k-1]
			left := f.synced
			f.cut(sc.seen(f))
			f.synced = left
		}
	}
	*me = server{}
}

// powerCut ends all servers. Of each thing that was not synced enough is kept, or not: records up to any one, the names of epochs, the names of files that
// were unlinked, marks.
func (sc *scope) powerCut(s *logState, emit func(step, logState)) {
	base := *s
	base.cuts--
	for i := range sc.servers {
		sc.forget(&base, &base.servers[i])
	}
	all := []logState{base}
	vary := func(f func(logState) []logState) {
		var more []logState
		for _, a := range all {
			more = append(more, f(a)...)
		}
		all = more
	}
	for k := range sc.files {
		vary(func(a logState) (out []logState) {
			for left := a.files[k].synced; left <= a.files[k].written; left++ {
				b := a
				b.files[k].cut(left)
				out = append(out, b)
			}
			return out
		})
		if base.files[k].name == unlinked {
			vary(func(a logState) []logState {
				b := a
				a.files[k].name, b.files[k].name = gone, there
				return []logState{a, b}
			})
		}
	}
	if base.epochs != base.durable {
		vary(func(a logState) []logState {
			b := a
			b.epochs = b.durable
			return []logState{a, b}
		})
	}
	for e := 1; e <= sc.epochs; e++ {
		if base.marks[e].file > 0 {
			vary(func(a logState) []logState {
				b := a
				b.marks[e] = mark{}
				return []logState{a, b}
			})
		}
	}
	for _, a := range all {
		a.durable = a.epochs
		emit(step{what: "the power fails"}, a)
	}
}

// wrong judges what every state must satisfy.
func (sc *scope) wrong(s *logState) string {
	if s.broken != "" {
		return s.broken
	}
	for i := range sc.servers {
		o := &s.servers[i]
		if !o.reads || o.epoch == 0 || o.late {
			continue
		}
		alive := o.alive(&s.store, false)
		for m := 1; m <= sc.messages; m++ {
			by, end := s.confirmed[m], s.finished[m]
			switch {
			case by != 0 && o.epoch >= by && o.known&(1<<m) == 0:
				return "lost: a message was confirmed, and a later owner does not know of it"
			case o.known&^alive&^o.over&(1<<m) != 0:
				return "lost: a message is not in the log any more, and its end never was"
			case end != 0 && o.epoch >= end && alive&(1<<m) != 0:
				return "came back: the end of a message was confirmed, and a later owner would deliver it again"
			}
		}
	}
	return ""
}

// key names the state. Servers that change places make no other state, so they are put in order.
func (sc *scope) key(s *logState, b []byte) []byte {
	b = append(b, s.crashes, s.cuts, s.rolls, s.epochs, s.durable, s.sent, s.held)
	for _, m := range s.marks {
		b = append(b, m.file, m.count)
	}
	b = append(b, s.confirmed[:]...)
	b = append(b, s.finished[:]...)
	b = append(b, s.final[:]...)
	for i := range sc.files {
		f := &s.files[i]
		b = append(b, f.epoch, f.name, f.written, f.synced, f.first, f.before, f.head, f.over)
		b = append(append(b, f.ends[:]...), f.past[:]...)
		b = append(b, f.records[:]...)
	}
	var keys [maxServers][]byte
	for i := range sc.servers {
		keys[i] = s.servers[i].key(make([]byte, 0, 64))
	}
	list := keys[:sc.servers]
	slices.SortFunc(list, slices.Compare)
	for _, k := range list {
		b = append(b, k...)
	}
	return append(b, s.broken...)
}

func (s *server) key(b []byte) []byte {
	reads := uint8(0)
	if s.reads {
		reads = 1
	}
	if s.late {
		reads += 2
	}
	b = append(b, uint8(s.at), s.pc, s.epoch, s.top, s.names, reads, s.known, s.over, s.last, s.current, s.spare, s.records, s.to, s.durable, s.due, s.litter)
	b = append(append(b, s.ends[:]...), s.past[:]...)
	b = append(b, s.doomed[:]...)
	b = append(b, s.copy.epoch, s.copy.seen.file, s.copy.seen.count, s.copy.seenIn, s.copy.tip)
	b = append(b, s.copy.ends[:]...)
	return append(b, s.copy.applied[:]...)
}
