package fencemodel

import "slices"

// The second model: LOCK, and how it is stolen (lease.go of package journal). No message depends on any of it, as the first model shows. What depends on it is
// peace: that nobody fences an owner that lives, and that in the end the owner is the one whose lock candidates see.

// lockRules are those of the code, or with one of them broken.
type lockRules struct {
	ghost    bool // who locked a file does not look whether it still has its name (candidate.try)
	asleep   bool // … nor does it before the claim (Journal.claim)
	freshTop bool // a thief claims above whatever is highest, not above what it saw to be silent (candidate.steal)
	noPut    bool // a thief leaves LOCK as it is (putLock)
	noKeep   bool // an owner does not look after LOCK (lockFile.keep)
}

// lockScope bounds the second model.
type lockScope struct {
	lockRules
	servers         int
	lease           bool // owners that show no life lose the store
	epochs          uint8
	freezes, deaths uint8
}

type lockPhase uint8

const (
	looking  lockPhase = iota // candidate.wait
	locked                    // tryLock worked; the name is not looked at yet
	won                       // it is
	listed                    // claims: the highest epoch is known
	entitled                  // LOCK is still ours, in Journal.claim
	decided                   // the owner is overdue, in candidate.steal
	thief                     // claimOne worked
	armed                     // LOCK-<epoch> is made and locked, and there is no higher epoch, in putLock
	placed                    // it is renamed
	late                      // there is a higher epoch: candidate.leave
	ruling                    // it owns the store
	mending                   // LOCK-<epoch> is made and locked again, in lockFile.keep
	dead
)

// locker is one server. Inodes are numbered; 0 is none.
type locker struct {
	at     lockPhase
	fd     uint8 // the file that is to be LOCK, as it has it open
	holds  bool  // that is locked
	next   uint8 // a file that will be LOCK, and is locked
	top    uint8 // the highest epoch that it knows
	epoch  uint8
	frozen bool
	marked bool // it was frozen since it looked last whether it may go on, or, an owner, since it claimed
	amidst bool // when it looked, somebody owned the store and was well
}

type lockState struct {
	servers         [maxServers]locker
	name            uint8 // the inode that is called LOCK
	inodes          uint8
	top             uint8 // the highest epoch
	freezes, deaths uint8 // that are left
	broken          string
}

func (sc *lockScope) start() lockState {
	s := lockState{name: 1, inodes: 1, top: 1, freezes: sc.freezes, deaths: sc.deaths}
	for i := range sc.servers {
		s.servers[i] = locker{fd: 1, top: 1}
	}
	s.servers[0] = locker{at: ruling, fd: 1, holds: true, top: 1, epoch: 1}
	return s
}

// free says whether nobody has a file locked.
func (s *lockState) free(inode uint8) bool {
	return !slices.ContainsFunc(s.servers[:], func(o locker) bool { return o.holds && o.fd == inode || o.next == inode })
}

// well says whether somebody owns the store, in the highest epoch, has the LOCK that others see, and was not stopped since it owns the store.
func (s *lockState) well() bool {
	return slices.ContainsFunc(s.servers[:], func(o locker) bool {
		return (o.at == ruling || o.at == mending) && o.epoch == s.top && o.fd == s.name && !o.frozen && !o.marked
	})
}

// silent says whether a candidate has seen no life for long: neither a beat in the file that it takes for LOCK nor a claim. Whoever is not stopped does what it
// does in less time than that, so nobody is silent who could go on.
func (s *lockState) silent(me *locker) bool {
	if me.fd != s.name {
		return false // it looks at the name much more often than that
	}
	held := false
	for i := range s.servers {
		o := &s.servers[i]
		switch {
		case o == me || o.at == dead:
		case o.holds && o.fd == me.fd && !o.frozen:
			return false
		case o.epoch == s.top && !o.frozen && o.at != looking:
			return false
		case o.holds && o.fd == me.fd:
			held = true
		}
	}
	return held
}

func (sc *lockScope) next(s *lockState, emit func(step, lockState)) {
	for i := range sc.servers {
		me := s.servers[i]
		try := func(what string, do func(after *lockState, me *locker)) {
			after := *s
			do(&after, &after.servers[i])
			emit(step{what: what, server: int8(i + 1)}, after)
		}
		switch {
		case me.at == dead:
			continue
		case me.frozen:
			try("wakes up", func(_ *lockState, me *locker) { me.frozen = false })
		default:
			sc.act(s, i, try)
			if s.freezes > 0 {
				try("is stopped", func(s *lockState, me *locker) { s.freezes--; me.frozen, me.marked = true, true })
			}
			if me.at == ruling {
				try("hands over", func(s *lockState, me *locker) { s.again(me) })
			}
		}
		if s.deaths > 0 {
			try("dies", func(s *lockState, me *locker) { s.deaths--; *me = locker{at: dead} })
		}
	}
}

// again makes a candidate of whoever gave up, was fenced, or has handed over.
func (s *lockState) again(me *locker) { *me = locker{fd: s.name, top: s.top} }

// act is what a server that runs may do next of its own accord.
func (sc *lockScope) act(s *lockState, i int, try func(string, func(*lockState, *locker))) {
	me := s.servers[i]
	switch me.at {
	case looking:
		if me.fd != s.name {
			try("opens the new LOCK", func(s *lockState, me *locker) { me.fd = s.name }) // relook
		}
		if me.top != s.top {
			try("sees a claim", func(s *lockState, me *locker) { me.top = s.top }) // claimed
		}
		if s.free(me.fd) {
			try("locks its file", func(s *lockState, me *locker) { me.at, me.holds = locked, true })
		}
		if sc.lease && me.top == s.top && s.top < sc.epochs && s.silent(&s.servers[i]) {
			try("finds the owner overdue", func(s *lockState, me *locker) { me.at = decided; me.look(s) })
		}
	case locked:
		try("looks whether its file is LOCK", func(s *lockState, me *locker) {
			if me.fd == s.name || sc.ghost {
				me.at = won
				me.look(s)
				return
			}
			s.again(me)
		})
	case won:
		try("lists the epochs", func(s *lockState, me *locker) { me.at, me.top = listed, s.top })
	case listed:
		try("looks again whether its file is LOCK", func(s *lockState, me *locker) {
			if me.fd == s.name || sc.asleep || sc.ghost {
				me.at = entitled
				if me.look(s); me.fd != s.name && sc.asleep {
					me.amidst = s.well()
				}
				return
			}
			s.again(me)
		})
	case entitled:
		try("claims", func(s *lockState, me *locker) {
			if s.top == sc.epochs {
				s.again(me)
				return
			}
			s.claim(me)
			me.at = ruling
		})
	case decided:
		try("claims in spite of the lock", func(s *lockState, me *locker) {
			if s.top != me.top && !sc.freshTop {
				s.again(me) // somebody was faster
				return
			}
			if s.top == sc.epochs {
				s.again(me)
				return
			}
			if s.top != me.top { // what it found overdue then is not what it fences now
				me.amidst = s.well()
			}
			s.claim(me)
			if me.at = thief; sc.noPut {
				me.at = ruling
			}
		})
	case thief:
		try("makes a file to be LOCK", func(s *lockState, me *locker) {
			if s.top > me.epoch {
				s.again(me)
				return
			}
			s.inodes++
			me.next, me.at = s.inodes, armed
		})
	case armed:
		try("renames it to LOCK", func(s *lockState, me *locker) {
			s.name, me.fd, me.holds, me.next, me.at = me.next, me.next, true, 0, placed
		})
	case placed:
		try("looks for a higher epoch", func(s *lockState, me *locker) {
			if me.at = late; s.top == me.epoch {
				me.at, me.marked = ruling, false
			}
		})
	case late:
		if me.fd != s.name || !s.well() { // it waits for the owner, not for ever
			try("lets go of LOCK", func(s *lockState, me *locker) { s.again(me) })
		}
	case ruling: // Journal.pulse
		switch {
		case s.top > me.epoch:
			try("finds that it was fenced", func(s *lockState, me *locker) { s.again(me) })
		case me.fd != s.name && !sc.noKeep && !sc.noPut:
			try("makes another file to be LOCK", func(s *lockState, me *locker) {
				s.inodes++
				me.next, me.at = s.inodes, mending
			})
		}
	case mending:
		try("renames that to LOCK", func(s *lockState, me *locker) {
			s.name, me.fd, me.next, me.at = me.next, me.next, 0, ruling
		})
	}
}

// look notes in what state a server went on.
func (me *locker) look(s *lockState) { me.marked, me.amidst = false, s.well() }

// claim takes the next epoch.
func (s *lockState) claim(me *locker) {
	if s.well() && me.amidst && !me.marked {
		s.broken = "an owner that lives is fenced by one that saw no reason to"
	}
	s.top++
	me.epoch, me.top, me.marked, me.amidst = s.top, s.top, false, false
}

// wrong adds what must come true from any state on, if nobody is stopped, dies or hands over any more: those who run agree on an owner, if the lock is not with
// one that is stopped; it has the highest epoch and the LOCK that candidates see; and each server claims once at most until then, on average.
func (sc *lockScope) wrong(s *lockState) string {
	if s.broken != "" {
		return s.broken
	}
	for _, back := range []bool{false, true} {
		if why := sc.settle(*s, back); why != "" {
			return why
		}
	}
	return ""
}

func (sc *lockScope) settle(s lockState, back bool) string {
	calm := *sc
	calm.epochs = 0xff
	first := s.top
	for moved := true; moved; {
		moved = false
		for k := range sc.servers {
			i := k
			if back {
				i = sc.servers - 1 - k
			}
			if s.servers[i].at == dead || s.servers[i].frozen {
				continue
			}
			done := false
			calm.act(&s, i, func(_ string, do func(*lockState, *locker)) {
				if !done {
					do(&s, &s.servers[i])
					done = true
				}
			})
			moved = moved || done
		}
		if s.broken != "" {
			return "" // whoever did that is judged where it is reached by steps that were chosen
		}
		if s.top > first+uint8(sc.servers) {
			return "candidates fence each other without an end"
		}
	}
	runs, owners := 0, 0
	for i := range s.servers[:sc.servers] {
		me := &s.servers[i]
		if me.at == dead || me.frozen {
			continue
		}
		runs++
		if me.at == ruling && me.epoch == s.top {
			owners++
			if (me.fd != s.name || !me.holds) && !sc.noPut {
				return "the owner does not have the LOCK that candidates see"
			}
		}
	}
	stuck := slices.ContainsFunc(s.servers[:], func(o locker) bool { return o.frozen && o.at != dead && (o.holds && o.fd == s.name || o.next > 0) })
	if runs > 0 && owners == 0 && (sc.lease || !stuck) {
		return "nobody takes the store"
	}
	return ""
}

func (sc *lockScope) key(s *lockState, b []byte) []byte {
	// Inodes are alike but for their order: they are numbered by who has them.
	number := map[uint8]uint8{0: 0, s.name: 1}
	list := slices.Clone(s.servers[:sc.servers])
	slices.SortFunc(list, func(a, b locker) int { return slices.Compare(a.key(nil), b.key(nil)) })
	b = append(b, s.top, s.freezes, s.deaths)
	for _, o := range list {
		for _, n := range []*uint8{&o.fd, &o.next} {
			if _, ok := number[*n]; !ok {
				number[*n] = uint8(len(number))
			}
			*n = number[*n]
		}
		b = o.key(b)
	}
	return append(b, s.broken...)
}

func (me *locker) key(b []byte) []byte {
	flags := uint8(0)
	for i, f := range []bool{me.holds, me.frozen, me.marked, me.amidst} {
		if f {
			flags |= 1 << i
		}
	}
	return append(b, uint8(me.at), me.epoch, me.top, flags, me.fd, me.next)
}
