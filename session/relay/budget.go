package relay

import (
	"sync/atomic"
	"time"
)

// Budget bounds what all sessions that share it keep for a replay. When it is spent, clients of whom something is kept are not read any more,
// until brokers have confirmed an eighth of it; the others are, and so is one that has a transaction open, for its end must be able to arrive. It is
// overrun by what was read already and by such transactions. Safe for concurrent use.
type Budget struct {
	limit int64
	kept  atomic.Int64
	full  atomic.Bool
	held  atomic.Int64
}

// NewBudget makes one of limit octets; none is without a bound.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// BudgetState is a Budget at one moment.
type BudgetState struct {
	Kept, Limit int64 // octets; a Limit of 0 is none
	Full        bool
	Held        int // clients that are not read for it
}

// State is a snapshot.
func (b *Budget) State() BudgetState {
	return BudgetState{b.kept.Load(), b.limit, b.spent(), int(b.held.Load())}
}

func (b *Budget) add(n int) {
	if b != nil && n != 0 {
		b.kept.Add(int64(n))
	}
}

// spent decides anew each time it is asked, so that two sessions which change the sum at once cannot leave a decision behind that is out of date.
func (b *Budget) spent() bool {
	switch kept := b.kept.Load(); {
	case b.limit <= 0:
		return false
	case kept > b.limit:
		b.full.Store(true)
	case kept <= b.limit-b.limit/8:
		b.full.Store(false)
	}
	return b.full.Load()
}

// budgetPoll is how often a client that is held for the budget asks again: whoever lets something go does not know whom to tell.
const budgetPoll = 50 * time.Millisecond

// overdrawn reports whether the client is not to be read because of the budget. It is called under the mutex.
func (c *Conn) overdrawn() bool {
	return c.cfg.Budget != nil && c.kept > 0 && !c.out.Open && c.cfg.Budget.spent()
}

// overdraw notes whether the client is held for the budget. It is called under the mutex.
func (c *Conn) overdraw(yes bool) {
	switch {
	case yes == c.overdraft:
		return
	case yes:
		c.cfg.Budget.held.Add(1)
	default:
		c.cfg.Budget.held.Add(-1)
	}
	c.overdraft = yes
	c.arm(time.Now())
}

// account tells the budget what the recorder keeps now. It is called under the mutex.
func (c *Conn) account() {
	c.cfg.Budget.add(c.out.Kept - c.kept)
	c.kept = c.out.Kept
}
