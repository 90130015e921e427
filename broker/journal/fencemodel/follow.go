package fencemodel

// warm is a candidate's copy: follower. Files stay open, so what was deleted since can still be read.
type warm struct {
	epoch   uint8 // whose mark is read
	seen    mark  // that was read, and not taken in yet: what lies between may take any time
	seenIn  uint8
	tip     uint8           // 1 + the file where the log goes on; 0: there is no copy
	ends    [maxFiles]uint8 // what is proved of each
	applied [maxFiles]uint8 // and what of that was visited
}

// followers is what a candidate may do for its copy: follower.step.
func (sc *scope) followers(s *logState, me *server, try func(func(*turn))) {
	c := &me.copy
	if c.seen.file > 0 {
		try((*turn).prove)
	}
	see := func(m mark, in uint8) {
		if m.file > 0 && (m != c.seen || in != c.seenIn) && (m.file != c.tip || m.count > c.ends[m.file-1]) {
			try(func(t *turn) { // follower.mark, or successor
				t.s.copy.seen, t.s.copy.seenIn = m, in
				t.done("reads a mark, of epoch", int(in))
			})
		}
	}
	newest, in := s.lastMark(s.top() + 1)
	if c.tip > 0 && in != c.epoch {
		see(s.marks[c.epoch], c.epoch)
	}
	if c.tip == 0 || in >= c.epoch {
		see(newest, in)
	}
	if k := c.next(sc, s); k >= 0 {
		try(func(t *turn) {
			t.s.copy.applied[k]++
			t.done("applies the next record of segment", k)
		})
	}
}

// next is the file of which a record is to be visited; -1 if there is none.
func (c *warm) next(sc *scope, s *logState) int {
	first := -1
	for k := range c.ends {
		end, seen := c.ends[k], sc.seen(&s.files[k])
		if sc.eager && k+1 == int(c.tip) {
			end = max(end, seen)
		}
		if c.applied[k] < min(end, seen) && (first < 0 || s.later(first, k)) {
			first = k
		}
	}
	return first
}

// prove takes a mark in: follower.begin and chain, or follower.prove.
func (t *turn) prove() {
	c := &t.s.copy
	z, in := int(c.seen.file-1), c.seenIn
	n := c.seen.count
	c.seen, c.seenIn = mark{}, 0
	f := &t.files[z]
	switch {
	case c.tip == uint8(z+1):
		c.ends[z] = max(c.ends[z], n)
	case f.name != there: // a successor deleted it: there is a newer mark
	case c.tip == 0:
		c.tip, c.epoch, c.ends = uint8(z+1), in, f.ends
		for _, r := range f.records[:n] {
			if r >= recDrop && r < recBegin {
				c.ends[r-recDrop] = 0
			}
		}
		c.ends[z] = n
		for k, n := range c.ends {
			if n > 0 && t.files[k].name != there {
				t.discard()
				return
			}
		}
	default:
		t.extend(z, n, in)
		return
	}
	t.done("takes in a mark in segment", z)
}

// extend follows the log into a later segment: follower.extend and since.
func (t *turn) extend(z int, n, in uint8) {
	c, f := &t.s.copy, &t.files[z]
	y := int(c.tip - 1)
	cut := f.ends[y]
	if cut == 0 && int(f.before) == y+1 {
		cut = f.first - t.files[y].first
	}
	if cut == 0 {
		t.discard()
		return
	}
	if c.applied[y] > cut {
		t.violate("phantom: a follower applied what its log does not hold")
	}
	c.ends[y] = cut
	next := t.files[y].first + cut
	for range f.ends { // those between, in order
		k := -1
		for i, n := range f.ends {
			if n > 0 && t.later(i, y) && t.files[i].first == next {
				k = i
			}
		}
		if k < 0 {
			break
		}
		if t.files[k].name != there {
			t.discard()
			return
		}
		c.ends[k] = f.ends[k]
		next += f.ends[k]
	}
	if next != f.first {
		t.discard()
		return
	}
	c.ends[z], c.tip, c.epoch = n, uint8(z+1), in
	t.done("follows the log into segment", z)
}

// discard throws the copy away: some of what it needs was deleted before it was read.
func (t *turn) discard() {
	t.s.copy = warm{}
	t.done("begins its copy again", 0)
}

// promote compares the copy with the log, behind the claim: recovery.resume. There it is thrown away where they differ. Here it must never be ahead.
func (t *turn) promote() {
	s := t.s
	for k, n := range s.copy.applied {
		switch {
		case n == 0:
		case s.ends[k] > 0 && n > s.ends[k]:
			t.violate("phantom: a new owner had applied what its log does not hold")
		case s.ends[k] == 0 && n > s.past[k]:
			t.violate("phantom: a new owner had applied a segment that was never in the log")
		}
	}
	s.copy = warm{}
}
