package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/understudy-mq/understudy/broker"
	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/cmd/internal/admin"
)

const someUUID = "5b2c7a52-6f0e-4b0c-9f64-0d5d3b1f6a11"

// letsGo is a server whose hand-over ends in err after a while; then its share in the store is what later says.
type letsGo struct {
	err   error
	later func(after time.Duration) broker.StoreStatus

	gone time.Time
}

func (l *letsGo) HandOver(context.Context, string, string) error {
	time.Sleep(20 * time.Millisecond)
	l.gone = time.Now()
	return l.err
}

func (l *letsGo) Status() broker.Status {
	share := broker.StoreStatus{StoreConfig: broker.StoreConfig{Name: "orders"}, UUID: someUUID, Role: broker.Active, Epoch: 4}
	if !l.gone.IsZero() && l.err == nil {
		share = l.later(time.Since(l.gone))
		share.Name, share.UUID = "orders", someUUID
	}
	return broker.Status{Node: "a", Stores: []broker.StoreStatus{{StoreConfig: broker.StoreConfig{Name: "others"}}, share}}
}

// The answer to a hand-over says who has the store then. The server that let it go learns that as a standby.
func TestHandOverCommand(t *testing.T) {
	standby := func(epoch uint64) broker.StoreStatus {
		return broker.StoreStatus{Role: broker.Standby, Epoch: 4, Owner: journal.Owner{Node: "b", Epoch: epoch}}
	}
	takenAfter := func(wait time.Duration, then broker.StoreStatus) func(time.Duration) broker.StoreStatus {
		return func(after time.Duration) broker.StoreStatus {
			if after < wait {
				return standby(0) // it is claiming
			}
			return then
		}
	}
	for _, c := range []struct {
		name, query string
		server      *letsGo
		want        handedOver
		code        int // of the refusal; 0: none, -1: a failure
		text        string
	}{
		{"taken", "store=orders&to=b", &letsGo{later: takenAfter(30*time.Millisecond, standby(5))}, handedOver{To: "b", Epoch: 5, ReleasedMS: 20, TakenMS: 50}, 0, ""},
		{"by UUID", "store=" + strings.ToUpper(someUUID), &letsGo{later: takenAfter(0, standby(5))}, handedOver{To: "b", Epoch: 5, ReleasedMS: 20, TakenMS: 20}, 0, ""},
		{"it comes back", "store=orders", &letsGo{later: takenAfter(time.Second, broker.StoreStatus{Role: broker.Active, Epoch: 5})}, handedOver{To: "a", Epoch: 5, ReleasedMS: 20, TakenMS: 1020}, 0, ""},
		{"nobody takes it", "store=orders", &letsGo{later: takenAfter(time.Hour, standby(5))}, handedOver{}, -1, "nobody has taken it"},
		{"an old owner's name is no new owner", "store=orders", &letsGo{later: takenAfter(0, standby(4))}, handedOver{}, -1, "nobody has taken it"},
		{"no store said", "to=b", &letsGo{}, handedOver{}, http.StatusBadRequest, "?store=NAME"},
		{"unknown", "store=x", &letsGo{err: fmt.Errorf("%w: x", broker.ErrNoStore)}, handedOver{}, http.StatusNotFound, "no such store: x"},
		{"elsewhere", "store=orders", &letsGo{err: broker.ErrNotHeld}, handedOver{}, http.StatusConflict, "not served here"},
		{"to a stranger", "store=orders&to=x", &letsGo{err: broker.ErrNoCandidate}, handedOver{}, http.StatusConflict, "no such candidate"},
		{"twice at once", "store=orders", &letsGo{err: broker.ErrMoving}, handedOver{}, http.StatusConflict, "moving"},
		{"the disk fails", "store=orders", &letsGo{err: errors.New("sync segment: input/output error")}, handedOver{}, -1, "input/output"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				args, err := url.ParseQuery(c.query)
				if err != nil {
					t.Fatal(err)
				}
				done, err := handOver(c.server)(t.Context(), args)
				var refused *admin.Refusal
				switch {
				case c.code == 0:
					got, _ := done.(handedOver)
					if c.want.Store, c.want.UUID, c.want.From = "orders", someUUID, "a"; err != nil || !near(got, c.want) {
						t.Errorf("%+v %v, want %+v", got, err, c.want)
					}
				case err == nil || !strings.Contains(err.Error(), c.text):
					t.Errorf("%v, want %q", err, c.text)
				case errors.As(err, &refused) != (c.code > 0) || c.code > 0 && refused.Code != c.code:
					t.Errorf("%v is refused as %+v, want %d", err, refused, c.code)
				}
			})
		})
	}
}

// near compares but for the step in which the server's status is looked at.
func near(a, b handedOver) bool {
	late := a.TakenMS - b.TakenMS
	a.TakenMS = b.TakenMS
	return a == b && late >= 0 && late <= millis(takenPoll)
}

// awaitWarm waits until the server that serves the only store sees another one with an up-to-date copy.
func awaitWarm(t *testing.T, r *running, node string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		for _, s := range statusOf(t, r).Stores {
			for _, c := range s.Candidates {
				if c.Node == node && c.Warm && s.Role == "active" {
					return
				}
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is no warm candidate: %+v", node, statusOf(t, r).Stores)
		}
	}
}
