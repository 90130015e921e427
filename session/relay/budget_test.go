package relay

import (
	"io"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/session"
)

// saver keeps what clients send until the broker says something; an open transaction is announced by its first octet.
func saver() *pipe {
	return &pipe{feed: func(leg session.Leg, in session.Buf, out *session.Out) (int, int) {
		if leg == session.Broker {
			out.Kept = 0
			return in.Len(), 0
		}
		out.Open = in.Bytes()[0] == 'B'
		out.Kept += in.Len()
		out.Ref(session.Broker, in)
		return in.Len(), 0
	}}
}

// passed writes through a session and reports whether it reached the broker within the time.
func passed(t *testing.T, k *rig, broker io.Reader, text string, within time.Duration) bool {
	t.Helper()
	if _, err := io.WriteString(k.client, text); err != nil {
		t.Fatal(err)
	}
	return arrives(broker, len(text), within)
}

func arrives(broker io.Reader, n int, within time.Duration) bool {
	_ = broker.(interface{ SetReadDeadline(time.Time) error }).SetReadDeadline(time.Now().Add(within))
	_, err := io.ReadFull(broker, make([]byte, n))
	return err == nil
}

// What is kept for all sessions together is bounded: who has something kept waits, who has nothing kept or a transaction open does not, and
// room that brokers make is noticed.
func TestBudget(t *testing.T) {
	budget := NewBudget(80)
	with := func(c *Config) { c.Budget = budget }
	a, b, tx := newRig(t, saver(), with), newRig(t, saver(), with), newRig(t, saver(), with)
	brokerA, brokerB, brokerTx := a.up(), b.up(), tx.up()
	const soon, while = 5 * time.Second, 150 * time.Millisecond
	if !passed(t, tx, brokerTx, "BEGIN.....", soon) || !passed(t, a, brokerA, string(make([]byte, 70)), soon) || budget.State().Full {
		t.Fatalf("held below the limit: %+v", budget.State())
	}
	if !passed(t, a, brokerA, "one more...", soon) || !budget.State().Full {
		t.Fatalf("%+v", budget.State())
	}
	if passed(t, a, brokerA, "and more", while) {
		t.Error("a client whose frames are kept is read beyond the limit")
	}
	if s := budget.State(); s.Held != 1 || s.Kept != 91 || s.Limit != 80 {
		t.Errorf("%+v", s)
	}
	if !passed(t, tx, brokerTx, "B: more of the transaction", soon) {
		t.Error("a transaction cannot end")
	}
	if !passed(t, b, brokerB, "hi", soon) {
		t.Error("a client of whom nothing is kept is not read")
	}
	if _, err := io.WriteString(brokerA, "all confirmed"); err != nil {
		t.Fatal(err)
	}
	if !arrives(brokerA, len("and more"), soon) {
		t.Error("room was not noticed")
	}
	for _, k := range []*rig{a, b, tx} {
		k.client.Close()
		<-k.done
		k.done <- nil
	}
	if s := budget.State(); s.Kept != 0 || s.Held != 0 || s.Full {
		t.Errorf("sessions that ended still count: %+v", s)
	}
	if s := (&Budget{}).State(); s.Full {
		t.Error("no limit is a limit of nothing")
	}
}
