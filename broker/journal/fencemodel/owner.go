package fencemodel

// begin starts to take the store over. In this model anybody may, at any time: what is proved does not need the lock, nor that its holder is dead.
func (t *turn) begin() {
	t.s.at, t.s.pc = taking, 0
	t.take()
}

// take is the next step from the lock to a segment of one's own: Journal.start.
func (t *turn) take() {
	d, s := &t.store, t.s
	what := t.sc.taking[s.pc]
	s.pc++
	switch what {
	case opLookUp:
		s.top = d.top()
		if !t.sc.race && t.sc.taking[s.pc] == opCreate {
			t.take()
			return
		}
		t.done("looks for the highest epoch, which is", int(s.top))
	case opCreate:
		e := s.top + 1
		if int(e) > t.sc.epochs {
			return
		}
		if d.epochs&(1<<e) != 0 && !t.sc.plainCreate {
			s.top, s.pc = e, s.pc-1
			t.done("finds that somebody else made epoch", int(e))
			return
		}
		d.epochs |= 1 << e
		s.epoch = e
		t.done("makes epoch", int(e))
	case opKeep:
		d.durable = d.epochs
		if d.held&(1<<s.epoch) != 0 {
			t.violate("two servers hold one epoch")
		}
		d.held |= 1 << s.epoch
		t.done("makes the claim durable, of epoch", int(s.epoch))
	case opNames:
		s.names = d.names()
		t.done("lists the segments", 0)
	case opEnd:
		t.findEnd()
	case opReplay:
		t.replay()
	case opFile:
		if n, ok := d.create(s.epoch, t.sc.files); ok {
			first := uint8(1)
			if s.last > 0 {
				first = d.files[s.last-1].first + s.ends[s.last-1]
			}
			t.open(uint8(n), s.last, first)
			t.done("makes its first segment, number", n)
		}
	}
}

// findEnd is recovery.findEnd, judge and chain.
func (t *turn) findEnd() {
	d, s := &t.store, t.s
	end := -1
	for i := range d.files { // one that is gone since it was listed is no end: whoever was fenced removes what it had prepared, or what was dropped
		if s.names&(1<<i) != 0 && d.files[i].name == there && t.sc.seen(&d.files[i]) > 0 && (end < 0 || t.after(i, end)) {
			end = i
		}
	}
	below := s.epoch
	if below == 0 { // a broken rule: read before the claim
		below = d.top() + 1
	}
	proof, _ := d.lastMark(below)
	if t.sc.unjudged {
		proof = mark{}
	}
	overtaken := s.epoch > 0 && d.top() > s.epoch
	if end < 0 {
		if proof.file > 0 && overtaken {
			t.retreat()
			return
		}
		if proof.file > 0 {
			t.violate("damage is found where there is none: the log is gone, and a mark says that there was one")
		}
		t.done("finds an empty store", 0)
		return
	}
	f := &d.files[end]
	n := t.sc.seen(f)
	s.ends, s.last, s.known, s.over = f.ends, uint8(end+1), f.head, f.over
	for _, r := range f.records[:n] {
		if r >= recDrop && r < recBegin {
			s.ends[r-recDrop] = 0
		}
	}
	s.ends[end] = n
	s.past = f.past
	s.past[end] = n
	if k := proof.file - 1; proof.file > 0 {
		short := int(k) == end && proof.count > n || int(k) != end && t.after(int(k), end)
		switch {
		case short && overtaken:
			t.retreat()
			return
		case short:
			t.violate("a mark proves records that the log does not have: a new owner would refuse the store")
		case int(k) != end && s.ends[k] > 0 && s.ends[k] < proof.count:
			t.violate("a mark proves records that lie behind the end of their segment")
		}
	}
	t.done("finds the end of the log, in segment", end)
}

// after orders segments, to find the end of the log.
func (t *turn) after(a, b int) bool {
	if t.sc.byNumber {
		return a > b
	}
	return t.later(a, b)
}

// retreat is an Open that fails because somebody was faster, who has removed by now what was to be read: Journal.recover says that it was fenced. The candidate
// tries again.
func (t *turn) retreat() {
	t.sc.forget(t.logState, t.s)
	t.done("meets a file that is gone, and gives up this try", 0)
}

// replay is recovery.secure and recovery.replay: what counts from here on is durable, and read once more.
func (t *turn) replay() {
	d, s := &t.store, t.s
	if t.sc.trusting && s.copy.tip > 0 && s.ends[s.copy.tip-1] > s.copy.applied[s.copy.tip-1] {
		s.ends[s.copy.tip-1] = s.copy.applied[s.copy.tip-1]
	}
	for i, n := range s.ends {
		f := &d.files[i]
		if n == 0 {
			continue
		}
		if f.name != there && d.top() > s.epoch { // somebody was faster, and deletes already
			t.retreat()
			return
		}
		if f.name != there || t.sc.seen(f) < n {
			t.violate("damage: a segment that the log names is gone, or shorter than that")
			t.done("reads the log", 0)
			return
		}
		if t.sc.beyond {
			s.ends[i] = t.sc.seen(f)
		}
		if i+1 == int(s.last) && !t.sc.noSecure {
			f.synced = max(f.synced, n)
		}
	}
	if !t.sc.noSecure {
		d.durable = d.epochs
	}
	for i, n := range s.ends {
		for _, r := range d.files[i].records[:n] {
			switch {
			case r >= 1 && r <= maxMessages:
				s.known |= 1 << r
			case r > recEnd && r < recDrop:
				s.over |= 1 << (r - recEnd)
			}
		}
		if n == 0 && s.names&(1<<i) != 0 {
			s.litter |= 1 << i
		}
	}
	s.reads, s.late = true, s.epoch > 0 && d.top() > s.epoch
	t.promote()
	if t.sc.sweepFirst {
		s.due, s.litter = s.due|s.litter, 0
	}
	t.done("reads the log", 0)
}

// commitStep is the next step of Journal.commit, and of what follows it.
func (t *turn) commitStep() {
	d, s := &t.store, t.s
	f := &d.files[s.current-1]
	what := t.sc.commit[s.pc]
	switch what {
	case opWrite:
		f.written++
		if f.written < s.to {
			t.done("writes record", int(f.written))
			return
		}
		s.pc++
		t.finish("writes record", int(f.written))
	case opSync:
		f.synced = f.written
		if t.sc.unchecked {
			t.setFree(s.to)
		}
		s.pc++
		t.finish("syncs its segment, up to record", int(f.synced))
	case opCheck:
		if d.epochs&(1<<(s.epoch+1)) != 0 {
			s.at = fenced
			t.done("finds that it was fenced by epoch", int(s.epoch+1))
			return
		}
		s.pc++
		t.finish("finds no epoch", int(s.epoch+1))
	case opMark:
		d.marks[s.epoch] = mark{s.current, s.to}
		s.pc++
		t.finish("puts a mark behind record", int(s.to))
	}
}

// finish ends a step of a commit, which may be the last one. An answer is no step of its own: it is seen by nobody but clients, so one that comes at once binds
// all those whom a later one would.
func (t *turn) finish(what string, arg int) {
	s := t.s
	if int(s.pc) < len(t.sc.commit) && t.sc.commit[s.pc] == opAnswer {
		t.answer()
		s.pc++
		what += ", may answer"
	}
	if int(s.pc) == len(t.sc.commit) {
		s.at, s.pc, s.durable = serving, 0, s.to
		t.settle()
	}
	t.done(what, arg)
}

// answer makes promises: whatever is durable, as this owner believes, may be told to whoever asks, so it counts as told. That is the worst case: a receipt
// that leaves later than it might binds nobody who was not bound before.
func (t *turn) answer() {
	d, s := &t.store, t.s
	told := s.told(d, s.to)
	upTo := *s
	upTo.durable = s.to
	alive := upTo.alive(d, true)
	for m := 1; m <= t.sc.messages; m++ {
		if told&(1<<m) == 0 {
			continue
		}
		d.confirmed[m] = lowest(d.confirmed[m], s.epoch)
		if alive&(1<<m) == 0 {
			d.finished[m] = lowest(d.finished[m], s.epoch)
		}
	}
}

func lowest(a, b uint8) uint8 {
	if a == 0 || b < a {
		return b
	}
	return a
}

// settle is Journal.settle, behind a batch that counts.
func (t *turn) settle() {
	s := t.s
	t.setFree(s.durable)
	if s.durable > 1 {
		return
	}
	s.due, s.litter = s.due|s.litter, 0 // a segment was begun, and the store was ours after that: what takeOver found may go
	f := &t.files[s.current-1]
	ends := f.ends
	if f.before > 0 {
		ends[f.before-1] = f.first - t.files[f.before-1].first
	}
	for k, n := range ends {
		if n > 0 && t.final[k] > 0 && t.final[k] != n {
			t.violate("two owners disagree on where a segment ends")
		}
		t.final[k] = max(t.final[k], n)
	}
	if t.sc.collect {
		for e := uint8(1); e < s.epoch; e++ {
			t.epochs &^= 1 << e
			t.marks[e] = mark{}
		}
		t.store.durable &= t.epochs
	}
}

// setFree is Journal.release: what is durable by now lets files go.
func (t *turn) setFree(durable uint8) {
	for k, n := range t.s.doomed {
		if n > 0 && n <= durable {
			t.s.doomed[k] = 0
			t.s.due |= 1 << k
		}
	}
}
