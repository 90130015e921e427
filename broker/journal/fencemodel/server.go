package fencemodel

// op is one operation on the disk, or what is decided in one place of the code. A pause may lie between any two of them.
type op uint8

// What taking a store over is made of; see taking for their order.
const (
	opLookUp op = iota // journal.claims: the highest epoch that there is
	opCreate           // disk.create in journal.claim: the next one, by O_EXCL
	opKeep             // disk.sync and disk.syncDir in journal.claim
	opNames            // recovery.list
	opEnd              // recovery.findEnd, judge and chain: the newest segment that was begun, and the list in it
	opReplay           // recovery.secure (what is read is written again where it was, which changes nothing, and synced) and recovery.replay
	opFile             // Journal.reserve by way of firstFile: a segment of one's own

	opWrite  // disk.write in Journal.commit, record after record
	opSync   // disk.sync in Journal.commit
	opCheck  // checked.look in Journal.commit, which is markFile.fenced
	opMark   // markFile.put
	opAnswer // Options.Durable: receipts, and messages may be delivered; then Journal.settle
)

// rules are those of the code, or with one of them broken.
type rules struct {
	taking []op // from the lock to the first segment
	commit []op // of a batch

	plainCreate bool // an epoch file that exists is taken for one's own
	collect     bool // an owner removes epoch files that are older than the one before its own
	hasty       bool // segments are unlinked when that is appended
	unchecked   bool // … when that was synced
	sweepFirst  bool // what the log does not name is unlinked before the new owner's first segment is durable
	careless    bool // a segment may go while an ending in it refers to one that stays
	noSecure    bool // what is read is not synced
	beyond      bool // a segment is read to the end of its file, not to where the list says that it ends
	byNumber    bool // the end of the log is the segment with the highest number, of whatever epoch
	unjudged    bool // recovery takes a log for whole that is shorter than a mark says: nothing else in the model rests on marks but followers
	eager       bool // a follower applies what it sees, not what a mark proves
	trusting    bool // a new owner does not read again behind what it followed
}

// proper is what the code does.
func proper() rules {
	return rules{
		taking: []op{opLookUp, opCreate, opKeep, opNames, opEnd, opReplay, opFile},
		commit: []op{opWrite, opSync, opCheck, opMark, opAnswer},
	}
}

type phase uint8

const (
	waiting    phase = iota // a candidate, or a process that is down: it need not take a step
	taking                  // rules.taking
	committing              // rules.commit
	serving                 // nothing is being written
	fenced                  // it knows that it lost the store, but what it was about to unlink it still does (Journal.stop lets the janitor finish)
)

// server is what one process has in memory. The number of a file is 1 + its index here, 0 is none.
type server struct {
	at    phase
	pc    uint8 // in rules.taking or rules.commit
	epoch uint8
	top   uint8 // the highest epoch that it saw
	names uint8 // segments that it found, one bit each

	reads bool            // its log is known: all that follows
	late  bool            // there was a later epoch by then: it may have met what that one's owner left, and will find out before it answers
	ends  [maxFiles]uint8 // the log but for its current segment
	past  [maxFiles]uint8 // the same of all segments that were ever in it
	known uint8           // messages that were ever sent, one bit each
	over  uint8           // those of which an end is, or was, in the log
	last  uint8           // the file where it ended when it was read

	current uint8
	spare   uint8 // made for the next segment
	records uint8 // appended to the current segment
	to      uint8 // to which the batch goes that is being written
	durable uint8

	doomed [maxFiles]uint8 // goes when so many records of the current segment are durable
	due    uint8           // may be unlinked now, one bit each
	litter uint8           // no part of the log, one bit each

	copy warm
}

// each calls visit for every record of the server's log that it has appended, or only for those that are durable.
func (s *server) each(d *store, durableOnly bool, visit func(file int, rec uint8)) {
	for i, n := range s.ends {
		for _, r := range d.files[i].records[:n] {
			visit(i, r)
		}
	}
	if s.current == 0 {
		return
	}
	n := s.records
	if durableOnly {
		n = s.durable
	}
	for _, r := range d.files[s.current-1].records[:n] {
		visit(int(s.current-1), r)
	}
}

// alive says which messages are in the log and not consumed, one bit each.
func (s *server) alive(d *store, durableOnly bool) uint8 {
	var sent, ended uint8
	s.each(d, durableOnly, func(_ int, r uint8) {
		switch {
		case r >= 1 && r <= maxMessages:
			sent |= 1 << r
		case r > recEnd && r < recDrop:
			ended |= 1 << (r - recEnd)
		}
	})
	return sent &^ ended
}

// told says which messages the server knows to have been sent, as far as that is durable, one bit each.
func (s *server) told(d *store, upTo uint8) uint8 {
	known := uint8(0)
	if upTo > 0 {
		known = d.files[s.current-1].head
		for _, r := range d.files[s.current-1].records[:upTo] {
			if r >= 1 && r <= maxMessages {
				known |= 1 << r
			}
		}
	}
	return known
}

// mayGo says whether the rule of deletion lets a closed segment go: ledger.free.
func (s *server) mayGo(d *store, file int, careless bool) bool {
	alive := s.alive(d, false)
	var home [maxMessages + 1]int // the segment that brought each message; 0: none that stays
	s.each(d, false, func(i int, r uint8) {
		if r >= 1 && r <= maxMessages {
			home[r] = i + 1
		}
	})
	for _, r := range d.files[file].records[:s.ends[file]] {
		switch {
		case r >= 1 && r <= maxMessages && alive&(1<<r) != 0:
			return false
		case r > recEnd && r < recDrop && !careless:
			if at := home[r-recEnd]; at != 0 && at != file+1 {
				return false
			}
		}
	}
	return true
}
