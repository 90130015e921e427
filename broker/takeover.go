package broker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

// stand is a tenure: the keeper stands by, takes the store over when it is its turn, serves, and lets go. It returns nil when the store was handed over or
// ctx has ended.
func (k *keeper) stand(ctx context.Context) *ending {
	k.yield(ctx)
	if err := k.look(); err != nil {
		return &ending{role: Unreachable, err: fmt.Errorf("reach store: %w", err)}
	}
	t := newTenure(&k.srv.cfg, k.log, k.count)
	if k.srv.still {
		t.toMover = nil
	}
	log, end := k.open(ctx, t)
	if log == nil {
		if end != nil && ctx.Err() != nil {
			end = nil
		}
		return end
	}
	k.srv.share()
	defer func() {
		k.mu.Lock()
		k.tenure = nil
		k.publishLocked()
		k.mu.Unlock()
		k.srv.serves.Add(-1)
		k.srv.share()
		k.leaving.Go(t.wait)
	}()
	return k.serve(ctx, t, log)
}

// stands notes that the keeper does stand for the store: only then is its trouble over.
func (k *keeper) stands() {
	k.mu.Lock()
	role := k.status.Role
	k.mu.Unlock()
	if role == Unreachable || role == Failed {
		k.become(Standby, func(s *StoreStatus) {
			if s.Again = (time.Time{}); role == Unreachable {
				s.Trouble = nil
			}
		})
	}
}

// open waits for the lock, recovers, and lets clients in. While it waits it may fold the owner's log already; then little is left to do.
func (k *keeper) open(ctx context.Context, t *tenure) (*journal.Journal, *ending) {
	var st *store
	var rc *recovery
	reset := func() {
		st = newStore(&t.cfg, t.count)
		st.slog = t.log
		rc = newRecovery(st)
	}
	reset()
	var won time.Time
	opt := journal.Options{
		SegmentBytes: t.cfg.SegmentBytes, MaxRecord: t.cfg.MaxRecord, Takeover: t.cfg.Takeover, TakeoverAfter: t.cfg.TakeoverAfter,
		Standing: k.standing, Turn: &k.srv.turn, Candidates: k.candidates,
		Node: t.cfg.Name, Logger: t.cfg.Logger, Metrics: newJournalMetrics(t.cfg.Metrics, k.given.Name),
		Head: func() []journal.Entry {
			if st.now.IsZero() { // all records were visited
				st.now = time.Now()
				rc.finish()
			}
			return st.head()
		},
		Follow: !t.cfg.Cold, Reset: reset, Copied: k.copied,
		Won: func() {
			won = time.Now()
			k.srv.serves.Add(1)
			k.set(Recovering, nil)
			k.leaving.Go(k.srv.changed) // another store may be waiting for its turn
		},
		Durable: t.durable, Concerns: Concerns,
		Failed: func(err error) {
			t.fail(err)
			select {
			case t.failed <- err:
			default:
			}
		},
		Space: func(full bool) {
			t.lock()
			st.space(full)
			t.unlock()
		},
		Waiting: k.waiting, Tested: k.tested,
	}
	log, err := journal.Open(ctx, k.given.Dir, opt, func(r journal.Record) (journal.Account, error) { return rc.visit(r) })
	if err != nil {
		end := &ending{role: Unreachable, err: fmt.Errorf("open store %s: %w", k.given.Dir, err)}
		if !won.IsZero() {
			k.srv.serves.Add(-1)
			end.role, end.final = Failed, lastWord(err)
		}
		return nil, end
	}
	k.tested = true
	if err := k.srv.claim(k, log.Store(), k.view.Load().name); err != nil { // it came into the directory while the keeper waited for the lock
		k.srv.serves.Add(-1)
		err = errors.Join(fmt.Errorf("open store: %w", err), log.Close())
		return nil, &ending{role: Unreachable, final: lastWord(err), err: err}
	}
	st.log, st.uuid, st.epoch, st.now = log, log.Store(), log.Epoch(), time.Now()
	checked := log.Checked
	t.checked.Store(&checked)
	k.activate(t, st, rc, log, won)
	return log, nil
}

// waiting is what is known of the owner.
func (k *keeper) waiting(o journal.Owner) {
	_ = k.look() // the owner may have made it since, or named it anew
	k.stands()
	k.mu.Lock()
	if k.status.Owner = o; o.PID != 0 {
		k.fatal = nil // somebody serves it: what was damaged is mended
	}
	k.publishLocked()
	k.mu.Unlock()
	k.log.Info("standing by: the store has an owner", "owner", o.Node, "pid", o.PID, "epoch", o.Epoch, "silent", o.Silent)
}

// copied is how far the warm copy is.
func (k *keeper) copied(c journal.Copy) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status.Copy = c
}

// candidates are those who stand for the store.
func (k *keeper) candidates(list []journal.Candidate) {
	k.stands()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status.Candidates = list
}

// standing is what the other candidates are to know of us.
func (k *keeper) standing() journal.Standing {
	s := k.srv
	return journal.Standing{
		Own: k.given.Own, Serves: int(s.serves.Load()), Load: int(s.connections.Load()), Rank: s.cfg.Rank, Endpoint: s.cfg.Endpoint, Admin: s.cfg.Admin,
	}
}

// activate lets clients in.
func (k *keeper) activate(t *tenure, st *store, rc *recovery, log *journal.Journal, won time.Time) {
	took := time.Since(won)
	messages, sessions := t.begin(st, log)
	journaled := log.Stats()
	k.become(Active, func(s *StoreStatus) {
		s.UUID, s.Epoch, s.Recovered, s.Recovery = st.uuid, st.epoch, rc.records, took
		s.Owner, s.Copy, s.Copied, s.Candidates = journal.Owner{}, journal.Copy{}, int(journaled.Copied), nil
		s.Takeovers++
		s.Trouble, s.Again = nil, time.Time{}
		k.tenure, k.fatal = t, nil
	})
	k.count.takeovers.Inc()
	how := "warm"
	if journaled.Cold != "" {
		how = "cold: " + journaled.Cold
	}
	k.log.Info("store is ours", "uuid", st.uuid, "epoch", st.epoch, "copy", how, "copied", journaled.Copied,
		"records", rc.records, "messages", messages, "sessions", sessions, "recovery", took.Round(time.Microsecond).String())
	if k.given.Own {
		if err := k.christen(); err != nil {
			k.log.Warn("the store's name could not be written down: others know it by its UUID", "error", err)
		}
	}
}

// serve is the time with the journal. What must be undone is undone before it returns, last the lock.
func (k *keeper) serve(ctx context.Context, t *tenure, log *journal.Journal) *ending {
	stopMover := t.startMover(log)
	stopLoader := t.startLoader(t.store, log)
	tick := time.NewTicker(max(min(50*time.Millisecond, t.cfg.ReclaimWindow/20), time.Millisecond))
	defer tick.Stop()
	h := &handover{keeper: k, tenure: t, log: log, stopMover: stopMover, stopLoader: stopLoader}
	for {
		select {
		case <-ctx.Done():
			return h.run(order{reason: byShutdown, to: h.best()})
		case o := <-k.orders:
			end := h.run(o)
			o.done <- end.cause()
			return end
		case err := <-t.failed:
			stopMover()
			stopLoader()
			return h.lose(err)
		case <-tick.C:
			t.tick()
			if to := h.due(time.Now()); to != "" {
				return h.run(order{reason: byFailback, to: to})
			}
		}
	}
}

func (e *ending) cause() error {
	if e == nil {
		return nil
	}
	return e.err
}

// failure says how a tenure ended in which the store was served.
func (k *keeper) failure(doing string, err error) *ending {
	end := &ending{role: Failed, final: true, err: fmt.Errorf("%s %s: %w", doing, k.given.Dir, err)}
	switch {
	case errors.Is(err, journal.ErrFenced):
		end.role, end.final = Standby, false
	case lastWord(err):
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission): // all that the disk was given it may still take
		end.role, end.final = Unreachable, false
	}
	return end
}
