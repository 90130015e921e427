package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/cmd/internal/overview"
)

// awaitPicture asks for a status, by way of one server, until it is as wanted.
func awaitPicture(t *testing.T, admin, what string, wanted func(overview.View) bool) overview.View {
	t.Helper()
	asker := overview.NewAsker(false)
	defer asker.Close()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		view := overview.Merge(asker.Gather(t.Context(), []string{admin}))
		if wanted(view) {
			return view
		}
		if time.Now().After(deadline) {
			var text strings.Builder
			_ = overview.Print(&text, view, time.Now())
			t.Fatalf("waited for %s:\n%s", what, text.String())
		}
	}
}

// heldBy reports whether a store is served by node, with those candidates behind it, first come first.
func heldBy(v overview.View, store, node string, next ...string) bool {
	s, _ := v.Store(store)
	if s == nil || s.State != overview.Served || s.Hearsay || s.Holder != node || len(s.Candidates) != len(next) {
		return false
	}
	for i, c := range s.Candidates {
		if c.Node != next[i] {
			return false
		}
	}
	return true
}

// A standby of a whole tree stands for what is there and what appears there; a store that is not there is said to be missing, and waited for. One server is
// enough to ask: it knows where the others are.
func TestStandbyOfATree(t *testing.T) {
	tree := t.TempDir()
	dir := func(name string) string { return filepath.Join(tree, name) }
	a := start(t, "broker", "--store", "a="+dir("a"), "--stand-for", "b="+dir("b"), "--listen", "127.0.0.1:0", "--name", "n1")
	awaitRole(t, a, "active")
	admin := "http://" + a.addrs["admin"]
	view := awaitPicture(t, admin, "a store that is not there", func(v overview.View) bool {
		b, _ := v.Store("b")
		return b != nil && b.State == overview.Unheld && len(b.Trouble) > 0
	})
	if view.Held() {
		t.Error("all is well though nobody serves b")
	}
	if code, text, _ := command(t, "status", "--admin", admin); code != 1 || !strings.Contains(text, "b: NOBODY SERVES IT") || !strings.Contains(text, "b: n1 does not stand for it: ") {
		t.Errorf("exit code %d:\n%s", code, text)
	}
	spare := start(t, "broker", "--standby", "--stand-for-all", tree, "--listen", "127.0.0.1:0", "--name", "s1")
	awaitPicture(t, admin, "the standby", func(v overview.View) bool { return heldBy(v, "a", "n1", "s1") })
	b := start(t, "broker", "--store", "b="+dir("b"), "--stand-for", "a="+dir("a"), "--listen", "127.0.0.1:0", "--name", "n2")
	picture := func(v overview.View) bool {
		return heldBy(v, "a", "n1", "s1", "n2") && heldBy(v, "b", "n2", "s1", "n1") && v.Held() && len(v.Servers) == 3
	}
	for _, r := range []*running{a, b, spare} {
		awaitPicture(t, "http://"+r.addrs["admin"], "both stores, with the idle standby first", picture)
	}
	// A planned stop is a hand-over: the idle one takes the first store, and then the least loaded the second.
	a.stop(t)
	awaitPicture(t, "http://"+b.addrs["admin"], "the store at the standby", func(v overview.View) bool { return heldBy(v, "a", "s1", "n2") && heldBy(v, "b", "n2", "s1") })
	b.stop(t)
	awaitPicture(t, "http://"+spare.addrs["admin"], "the last survivor", func(v overview.View) bool { return heldBy(v, "a", "s1") && heldBy(v, "b", "s1") })
	spare.stop(t)
}

// When an owner comes back its store returns to it, after the time that is said.
func TestStoreReturnsToItsOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "orders")
	owner := start(t, "broker", "--store", dir, "--listen", "127.0.0.1:0", "--name", "owner")
	awaitRole(t, owner, "active")
	spare := start(t, "broker", "--standby", "--stand-for", dir, "--listen", "127.0.0.1:0", "--name", "spare", "--failback-after", "300ms")
	awaitWarm(t, owner, "spare")
	owner.stop(t)
	awaitRole(t, spare, "active")
	start(t, "broker", "--store", dir, "--listen", "127.0.0.1:0", "--name", "owner")
	view := awaitPicture(t, "http://"+spare.addrs["admin"], "the way back", func(v overview.View) bool { return heldBy(v, "orders", "owner", "spare") })
	if s, _ := view.Store("orders"); s.Epoch != 3 || len(s.Owners) != 1 || s.Owners[0] != "owner" {
		t.Errorf("%+v", s)
	}
}
