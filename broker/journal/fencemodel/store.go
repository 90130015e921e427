package fencemodel

import "slices"

// How large a state may get. A scope is smaller in most of these.
const (
	maxServers  = 3
	maxEpochs   = 4
	maxFiles    = 5
	maxRecords  = 5
	maxMessages = 2
)

// Records: 0 is none, 1 to maxMessages brings that message.
const (
	recEnd   = 16 // + message: it was consumed
	recDrop  = 32 // + number of a file that may go
	recBegin = 64 // header, list of segments and head: the opening group
)

// Whether a file has its name.
const (
	never    = iota
	there    // its name is durable
	unlinked // nobody finds it, but a power cut may bring it back
	gone
)

// file is a segment. It has one writer, the owner of its epoch, and what it will hold is fixed when it is appended: so records lie in their places, and two counts
// say how far they were written and synced. A number in the model is the order in which files were made, for which the code has epoch and number.
type file struct {
	epoch   uint8
	name    uint8
	written uint8
	synced  uint8
	first   uint8           // number of its opening record; the next ones follow
	before  uint8           // 1 + the file behind which the log goes on here; 0: none
	ends    [maxFiles]uint8 // its list of segments: up to which record each belongs to the log; 0: it does not
	head    uint8           // messages that were ever sent, as the sessions in its head know, one bit each
	past    [maxFiles]uint8 // like ends, but for all segments that were ever in its log; for a rule of the model
	over    uint8           // messages of which its owner had an end in the log; for a rule of the model
	records [maxRecords]uint8
}

// mark is where an owner says that its log is acknowledged up to: so many records of a file.
type mark struct {
	file  uint8 // 1 +; 0: there is no mark
	count uint8
}

// store is a directory on a disk that all servers share, and what clients know, which is in no file.
type store struct {
	epochs  uint8 // names that exist, one bit each
	durable uint8 // those of them that a power cut leaves
	marks   [maxEpochs + 1]mark
	files   [maxFiles]file

	sent uint8 // messages that were ever appended, one bit each

	// What was promised, by whom first: the lowest epoch that did so. A promise binds every later one.
	confirmed [maxMessages + 1]uint8 // the producer has a receipt, the message may be delivered
	finished  [maxMessages + 1]uint8 // the consumer has a receipt
	final     [maxFiles]uint8        // where an owner's durable list says that the file ends
	held      uint8                  // epochs that somebody got, one bit each
}

func (d *store) top() uint8 {
	for e := uint8(maxEpochs); e > 0; e-- {
		if d.epochs&(1<<e) != 0 {
			return e
		}
	}
	for e := uint8(maxEpochs); e > 0; e-- { // a segment's name holds an epoch as well
		if slices.ContainsFunc(d.files[:], func(f file) bool { return f.name == there && f.epoch == e }) {
			return e
		}
	}
	return 0
}

// names lists the segments that exist, one bit each.
func (d *store) names() (list uint8) {
	for i := range d.files {
		if d.files[i].name == there {
			list |= 1 << i
		}
	}
	return list
}

// make makes a file for an epoch; ok is false where the scope has no more.
func (d *store) create(epoch uint8, files int) (n int, ok bool) {
	for i := range d.files[:files] {
		if d.files[i].name == never {
			d.files[i] = file{epoch: epoch, name: there}
			return i, true
		}
	}
	return 0, false
}

// seen is how many records of a file another server than its writer finds.
func (sc *scope) seen(f *file) uint8 {
	if sc.apart {
		return f.synced
	}
	return f.written
}

// lastMark is the mark of the newest epoch below another one.
func (d *store) lastMark(below uint8) (mark, uint8) {
	for e := below - 1; e > 0; e-- {
		if d.marks[e].file > 0 {
			return d.marks[e], e
		}
	}
	return mark{}, 0
}

// later orders files as the log does: by epoch, then number.
func (d *store) later(a, b int) bool {
	if d.files[a].epoch != d.files[b].epoch {
		return d.files[a].epoch > d.files[b].epoch
	}
	return a > b
}

// cut leaves of a file what a power cut may: as many records as were synced at least. (One behind a hole is as good as none: nobody reads beyond.)
func (f *file) cut(left uint8) {
	clear(f.records[left:])
	f.written, f.synced = left, left
	if left == 0 {
		f.ends, f.past, f.head, f.over, f.first, f.before = [maxFiles]uint8{}, [maxFiles]uint8{}, 0, 0, 0, 0
	}
}
