// Package journal is the append-only segmented log under the paired broker, with its lock and its fencing.
//
// A store is a directory with one owner at a time. The owner appends records; a record counts, and may be acknowledged to clients, when Durable says
// so: it is on disk and the store was still ours after that. Whoever opens the store next is told of each record that counts, in order, and of none
// that was deleted. The journal does not know what records mean, but for their Account, by which it deletes segments.
//
//	LOCK                           lock and heart-beat of the owner; never deleted, replaced only by a lease or by an owner that lost it
//	LOCK-00000007                  what is about to become LOCK; there for a moment
//	candidates/NODE                what one that stands for the store says of itself, locked while it does
//	NAME                           the caller's
//	STORE                          UUID, made once
//	epoch-00000007                 made by each owner before it reads; holds its mark; never deleted
//	seg-00000007-00000000002a.log  segment 0x2a, written by the owner of epoch 7 and by nobody else, ever, but for a repair (recovery puts what is there where it is)
//	seg-00000007-00000000002a.idx  what recovery needs of it; derived, may be missing
//	quarantine/                    copies of torn tails and of what repairs gave up
//	self-test-…                    a page to find out how fast the disk flushes; there for a moment
//
// # Candidates
//
// Whoever waits for the lock keeps a file in candidates/, locked, with a beat: a death frees its lock at once, a stop ends its beat. From these files each candidate
// knows the others and orders them (ordered): whom the last owner named, owners of the store, who serves the fewest, and so on. When the lock is seen free each looks
// again and takes it after its place x 50 ms, or sooner when those before it are gone. An owner that leaves names its successor in LOCK, and the
// others wait for that one for a second, while it lives; the next owner's first beat is the end of that word.
//
// All of this is advice. A file that is missing, stale, torn or false costs an order, or a second: whoever takes the lock out of turn is an owner as any
// other, for it claims an epoch, and nothing else makes an owner. So candidates' files are never synced, and no error of them but one is one of the store: a directory
// that cannot be written any more is no place for a candidate.
//
// An owner for whom somebody waits lets go of the lock before it cleans up. From there on it is as one that was fenced, whose late steps are harmless (see below): it
// has nothing left to write, what it still deletes was deleted by durable records, and what it had prepared it leaves alone, since the successor may be
// looking at it.
//
// # Lease
//
// Takeover Lease takes the store from an owner that keeps the lock and shows no life. It is the one place where an epoch is claimed without the lock; the argument
// under Fencing never asked for it. The rest is told in lease.go.
//
// # Segments and records
//
//	 0           4096                                                        end              size
//	+-----------+----------+------+------+---------+---------+-...-+--------+----------------+
//	| opening   | manifest | head | head | record  | record  |     | record | zeros          |
//	+-----------+----------+------+------+---------+---------+-...-+--------+----------------+
//	             \_______ opening group ________/
//
// A segment is a header of one page and records behind it, aligned to 8. Its file is made ahead of time and full of zeros, so a header of zeros is
// where nothing was written. Formats are drawn at putOpening, appendRecord, appendManifest, appendDrop, indexHead and markFile.put. Checksums are seeded with
// segment and epoch: octets that were written elsewhere, or by a stale owner, never pass here. Records are numbered without a gap.
//
// The first record of a segment, its manifest, names all other segments of the log and where they end; then come the caller's head and the record
// for which the segment was begun. These are one group, written at once: a segment whose group is not whole was never begun. So a snapshot in the head
// never stands without the record whose effect it may show.
//
// # Commit
//
// One goroutine takes what was appended while the last batch was written (that is the group commit), and does, one batch at a time:
//
//	write → fdatasync → is there a higher epoch? → mark → Durable
//
// Before it takes a batch it may linger for a small part of a sync, for those whom the last batch has just set free (pace).
//
// An owner opens with: lock → create the next epoch file, sync it and the directory → read → write the last batch again and sync it → begin a segment by such a batch.
//
// Fencing. Let A be the owner that checks and B the one that takes over. If A's check does not see B's epoch file, the check came before the file was
// made, so A's sync came before B's read: B has the batch. If it does, A stops. Pauses of any length, anywhere, change nothing, and no clock is
// involved. The lock only keeps owners from fencing each other for nothing; with it stolen or broken the argument holds.
//
// Errors. A failed write or sync of a file that holds a record, or of the directory, is final. After a failed sync the kernel may forget the pages and call the
// next sync a success; whoever tries again acknowledges what is not there. It goes on showing these pages, so the next owner on that machine recovers a batch that is
// on no disk, and to sync it would write nothing. It writes that batch again, octet for octet, which makes the pages dirty, and then syncs it
// (recovery.renew argues why a write into another's segment is harmless). All before that batch was synced with success: a failure is final. To names this cannot be done;
// a file system that cannot write them has lost its own journal and takes no more.
//
// # Crash model
//
// When the process dies, all that it wrote is there. When the machine dies, what was synced is there, and of the rest any subset of sectors and
// names; a sector of 512 octets is written whole or not at all, and one that is written does not harm its neighbours. Disks that lie about flushes
// are outside; so is a file system that hides a new file from a look-up by name, as network file systems with cached look-ups do (mount
// them so that they do not; it was not tested there), or writes back whole pages of a file into which only a part of them was written, while another machine
// writes the rest. Bits may rot anywhere.
//
// # Recovery
//
// Files are ordered by epoch, then number. The last one that was begun is the end of the log; its manifest, less the deletions recorded behind it, is the rest.
// All but the last segment must be whole from header to recorded end; what lies behind that end came from a stale owner and is ignored for ever,
// as are files that no manifest names.
//
// The last segment is read up to the first record that is not whole and in its place. Call that record X. Because one batch is in flight at a time, either X
// belongs to the batch that a crash interrupted, or X was acknowledged and is damaged. It is damaged if
//
//   - a whole record behind it says that everything up to X or beyond was synced before it was written (each record carries that number: the end of
//     the batch before its own), or a later segment was begun; or
//   - the mark says that X was acknowledged. The mark is not synced. When only the process died it is exact, and where nothing up to it is missing there
//     is no need to read on to the end of the segment. When the machine died it may be old; then the rule above still covers all batches but the
//     last one.
//
// Then Open refuses with a DamageError. Else the tail is cut: X and all behind it were never acknowledged. A hole of zeros with whole records of the same
// batch behind it is such a tail too: the pages of one write reach the disk in any order. What is whole before X stays, though the batch is
// torn: the caller decided these records in this order, a prefix of its decisions is a state it was in, and Open makes it durable before
// anyone hears of it. The one case that is not told apart is damage to the very last batch in the same power failure that lost the mark.
//
// An owner that ends in good order says in LOCK with which record. Where that is what the mark says, and no epoch was claimed in between, there is nothing to
// search behind it on any machine, and nothing to sync: it was durable before those words were written, and only that owner could have appended more. A lock
// that was stolen vouches for nothing of that kind: its owner may write its mark yet.
//
// # Deletion
//
// A segment goes when nothing in it is live and no ending in it refers to a segment that stays: else recovery would meet the beginning without
// its end. That it goes is written to the log first, and the file is removed when that record counts; recovery knows it before it visits
// anything. So a file that is missing and was not deleted is damage, one that is there and was deleted is litter. What an owner deletes late, after it was
// fenced, is what its successor has read as deleted.
//
// # Evacuation
//
// One live thing would pin its segment for ever, and with it each later one that holds an ending of something there. So while files take much more than twice
// what is live, Sparse names the segment that is cheapest to empty, and the caller appends again what is alive in it, as records that end the old places, and
// the endings in it that are still needed (Account.Again). Then Forwarded takes its endings off it, and the rule of deletion does the rest:
//
//	Scan(42) … move, move, forward, …   Forwarded(42)   drop 42        durable        unlink
//	LSN:       900 901  902     …                        950 or later   950 counts
//
// The drop follows the copies in the log, and recovery keeps a prefix of it: if it knows the drop it knows the copies. If a crash comes before, it
// meets both. Its visitor counts a thing once, for it says Ends only of what it found alive where the record says, and Again of what had ended before. A copy
// never follows the ending of the same thing, since appends are in the order of the caller's decisions.
//
// Whenever the caller has done all that Sparse asks for, disk <= 2 x live + 4 segments; ledger.sparse argues why. A head that is a large part of its
// segment comes on top.
//
// # Full disk
//
// Two segments are always prepared: space reserved, size and name durable. So a lack of space is met only where a file is made that holds nothing, where it can
// be tried again, and never by a batch (file systems that take new space to overwrite old are outside). Until it is over Append refuses what brings something
// live once the current segment is full, with ErrFull, and takes the rest, which frees space: the prepared segments are its reserve. Nor does a segment begin
// before it has its file: who appends faster than files are made is told ErrBehind, and waits for one. At the end of each segment
// room is kept for a drop, so that what is dead can go though nothing can be appended. With the reserve used up everything is refused and nothing has failed. A
// store that was left so opens with a small first segment; what its last owner had prepared is removed when that was begun, not before: until then another
// candidate might take it for the end of the log.
//
// # Indexes
//
// Recovery needs only the front of most records. When a segment is sealed its index is written beside it: all records, with their fronts (drawn at indexHead).
// It is taken for the segment only if its checksum is right and it names the same store, epoch, first and last record and end as the list of segments does,
// and if its records add up to that end. Up to a given end the content of a segment is what its one writer appended, and the index was made of that; so what
// passes is right. Nothing else rests on it: it is not synced, it may be torn, stale or gone, and then the segment is read. Behind the fronts, damage is found
// when the record is read (Read, Scan), or by Check, which reads segments. A repair deletes the index of a segment that it changes.
//
// # Warm copy
//
// A candidate that waits for the lock, and is one of the first two or an owner of the store, may follow the log, so that its take-over does not depend on the backlog. It visits what a mark proves to have been
// acknowledged and no more; recovery, behind the claimed epoch, reads on from there, or from the beginning if the log that it finds is not the one that was
// visited. It is argued at follower.
//
// # Damage, check and repair
//
// Check lets recovery itself judge, on a disk that refuses every change, and then reads on beyond whatever is damaged: it says all that is wrong, and whom it
// hits as far as records say. Behind a gap it goes on at the next whole record whose number leaves room for those that are missing.
//
// Repair gives up what is in the gaps, when it is told to accept that. Each damaged segment is written anew, with a placeholder (typeLost) of the same number
// for every record that was lost (records that its index has whole are put back), and takes the old one's place by a rename; the last segment goes last. Why
// what it leaves is a store as any other:
//
//   - Numbers follow each other without a gap as before, and none is used again: the log ends no earlier than with the last record that anything proves to
//     have been acknowledged, whole or not.
//   - In all segments but the last everything stays at its offset and the end stays the end, so the lists in later segments hold, and so do references.
//   - Each rename makes one more segment whole. Until the last one, recovery finds damage and refuses; so a crash leaves a store that is refused, with
//     all that is whole still in it, or a repaired one.
//   - An epoch is claimed first. An owner that lost its lock and wakes up writes into files that have no name any more, and its next check stops it. The mark of that
//     epoch says how far the repaired log goes; there is no segment of that epoch, by which a follower knows that its copy is of another log.
//
// Endings may be lost with their records. Then what they ended is alive again: whoever lives with that was told.
//
// # What it does not do
//
// It does not know what records mean. It says which segments are mostly dead, and the caller appends again what lives there (Sparse, Scan, Forwarded); it reads
// single records back (Read), and the caller keeps where they lie.
package journal
