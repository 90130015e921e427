package broker

// spoil stops a queue: what the journal has of it is not what was written. To go on behind that would be to lose messages and not to say so.
func (s *store) spoil(q *queue, r *reading) {
	lsn := r.pos >> placeBits
	q.damage = faultf("damaged queue", "message %d of %s cannot be read (segment %d, offset %d): %v. Nothing is delivered from this queue until the store is repaired: "+
		"stop the server and run 'understudy journal check'", lsn, q.name, r.at.Segment, r.at.Offset, r.err)
	s.paging.damaged++
	s.slog.Error("queue stopped: a message in the journal cannot be read", "destination", q.name, "lsn", lsn, "segment", uint64(r.at.Segment), "offset", r.at.Offset,
		"error", r.err)
	for _, sub := range q.subs {
		if p := sub.session.peer; p != nil && sub.present {
			s.refuseDamaged(p, nil, q)
		}
	}
}

func (s *store) refuseDamaged(p *peer, receipt []byte, q *queue) {
	f := *q.damage
	s.refuse(p, receipt, &f)
}
