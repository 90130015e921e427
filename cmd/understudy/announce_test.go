package main

import (
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/understudy-mq/understudy/broker"
	"github.com/understudy-mq/understudy/health/gossip"
)

func TestAnnouncedStores(t *testing.T) {
	store := func(name string, role broker.Role, uuid string) broker.StoreStatus {
		return broker.StoreStatus{StoreConfig: broker.StoreConfig{Name: name}, Role: role, UUID: uuid, Epoch: 7}
	}
	got, cut := announced([]broker.StoreStatus{
		store("a", broker.Standby, "A"), store("b", broker.Active, "B"), store("unknown", broker.Standby, ""), store("c", broker.Recovering, "C"), store("gone", broker.Stopped, "D"),
	})
	want := []gossip.Store{{UUID: "B", Name: "b", Epoch: 7, Role: gossip.Active}, {UUID: "A", Name: "a"}, {UUID: "C", Name: "c"}}
	if fmt.Sprint(got) != fmt.Sprint(want) || cut != 0 {
		t.Errorf("%v, %d left out; want %v", got, cut, want)
	}
}

// Where others find the admin listener depends on where they find the process.
func TestAdminURL(t *testing.T) {
	for _, c := range []struct{ bound, host, want string }{
		{"127.0.0.1:0", "127.0.0.1", "http://127.0.0.1:"},
		{"127.0.0.1:0", "localhost", "http://127.0.0.1:"},
		{"127.0.0.1:0", "mq1.example", ""}, // there, others would find themselves
		{"0.0.0.0:0", "mq1.example", "http://mq1.example:"},
		{"0.0.0.0:0", "127.0.0.1", "http://127.0.0.1:"},
		{"0.0.0.0:0", "", ""},
		{"[::]:0", "0.0.0.0", ""},
	} {
		l, err := net.Listen("tcp", c.bound)
		if err != nil {
			t.Skip(err)
		}
		got := (&process{bound: l}).adminURL(c.host)
		_, port, _ := net.SplitHostPort(l.Addr().String())
		l.Close()
		if want := c.want + port; c.want != "" && got != want || c.want == "" && got != "" {
			t.Errorf("bound to %s, reached by %q: %q", c.bound, c.host, got)
		}
	}
	if got := new(process).adminURL("127.0.0.1"); got != "" {
		t.Errorf("no listener is at %q", got)
	}
}

// A server may have more stores than gossip takes: those that it serves are told, one line says that others are not.
func TestMoreStoresThanGossipTakes(t *testing.T) {
	log := &lockedBuffer{}
	logger := slog.New(slog.NewTextHandler(log, nil))
	node, err := gossip.New(gossip.Config{Name: "a", Kind: gossip.Broker, BindAddr: "127.0.0.1", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	var status broker.Status
	for i := range maxAnnounced + 3 {
		role := broker.Standby
		if i == maxAnnounced+2 {
			role = broker.Active
		}
		status.Stores = append(status.Stores, broker.StoreStatus{StoreConfig: broker.StoreConfig{Name: fmt.Sprintf("s%d", i)}, Role: role, UUID: fmt.Sprintf("%032d", i), Epoch: 1})
	}
	news := &announcer{node: node, endpoint: "127.0.0.1:61613", log: logger}
	news.changed(status)
	news.changed(status)
	news.drain()
	if n := strings.Count(log.String(), "left_out=3"); n != 1 || strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("told %d times: %s", n, log)
	}
	if got := news.last.Stores; len(got) != maxAnnounced || got[0].Name != "s66" || got[0].Role != gossip.Active || !news.last.Draining {
		t.Errorf("%d stores, first %v, draining %t", len(got), got[0], news.last.Draining)
	}
}
