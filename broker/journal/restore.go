package journal

// restored is what a gap in a sealed segment held, as its index knows it: records that it has whole, as they were, and placeholders where it has their fronts
// only, each where it was. n counts the former. ok is false if there is no index to tell, or the gap is not what the index says.
func (e *examined) restored(g gap) (b []byte, n int, ok bool) {
	if e.index == nil || !e.sealed || g.count(e) == 0 {
		return nil, 0, false
	}
	off, lsn := int64(segmentHeader), e.index.first
	begin := max(g.off, segmentHeader)
	for rest := e.index.entries; len(rest) > 0 && lsn <= g.to; lsn++ {
		var r entry
		if r, rest, ok = cutEntry(rest); !ok {
			return nil, 0, false
		}
		if lsn == g.from && off != begin {
			return nil, 0, false
		}
		if lsn >= g.from {
			h, payload := head{typ: r.typ, epoch: e.epoch, lsn: lsn}, r.front
			if r.typ >= typeManifest || len(r.front) < r.size {
				h.typ, payload = typeLost, make([]byte, r.size)
			} else {
				n++
			}
			if off == e.index.start {
				h.flags = flagOpens
			}
			b = appendRecord(b, seed(e.id, e.epoch), h, payload)
		}
		off += int64(recordSize(r.size))
	}
	return b, n, int64(len(b)) == g.end-begin
}
