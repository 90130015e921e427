package broker

// snapshot is the keeper's part of Status.
func (k *keeper) snapshot() StoreStatus {
	k.mu.Lock()
	status, t := k.status, k.tenure
	k.mu.Unlock()
	if t == nil {
		return status
	}
	status.Candidates = t.journal.Candidates()
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.store
	status.DiskFull, status.MemoryFull = st.outOfSpace(), len(st.full) > 0
	status.Queues, status.Messages, status.Bytes = len(st.queues), st.messages, st.memory
	status.Out, status.Damaged, status.MaxMemory = st.outs, st.paging.damaged, t.cfg.MaxMemory
	status.Connections = len(t.conns)
	for _, c := range st.sessions {
		if c.closed {
			continue
		}
		status.Sessions++
		if c.peer == nil {
			status.Absent++
			if status.AbsentSince.IsZero() || c.absent.Before(status.AbsentSince) {
				status.AbsentSince = c.absent
			}
		}
	}
	return status
}
