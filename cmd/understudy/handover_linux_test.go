package main

import (
	"net/http"
	"strings"
	"testing"
)

// A store goes to the server that is named, back to its owner on command, and what cannot be is said with the codes of the command line.
func TestHandover(t *testing.T) {
	dir := t.TempDir()
	owner := start(t, "broker", "--store", "orders="+dir, "--listen", "127.0.0.1:0", "--name", "a")
	awaitRole(t, owner, "active")
	other := start(t, "broker", "--standby", "--stand-for", "orders="+dir, "--listen", "127.0.0.1:0", "--name", "b", "--failback", "manual")
	awaitRole(t, other, "standby")
	c := talk(t, owner.addrs["listen"])
	c.sent("/queue/q", "hello")
	admin := owner.addrs["admin"]
	awaitWarm(t, owner, "b")
	code, text, stderr := command(t, "broker", "handover", "orders", "--to", "b", "--admin", admin)
	if code != 0 || stderr != "" || !strings.Contains(text, "orders: a has let it go after ") || !strings.Contains(text, "b has it after ") || !strings.Contains(text, "at epoch 2") {
		t.Fatalf("exit code %d, stdout %q, stderr %q", code, text, stderr)
	}
	awaitRole(t, other, "active")
	awaitRole(t, owner, "standby")
	if code, text, stderr := command(t, "broker", "handover", "orders", "--to", "b", "--admin", admin); code != 0 || text != "orders: b has it already, at epoch 2\n" {
		t.Errorf("again: exit code %d, stdout %q, stderr %q", code, text, stderr)
	}
	// Whoever was asked before knows where the store is now.
	awaitWarm(t, other, "a")
	code, text, stderr = command(t, "broker", "handover", "--json", "--admin", admin, "orders")
	if code != 0 || !strings.Contains(text, `"to": "a"`) || !strings.Contains(text, `"epoch": 3`) {
		t.Fatalf("exit code %d, stdout %q, stderr %q", code, text, stderr)
	}
	awaitRole(t, owner, "active")
	if got := talk(t, owner.addrs["listen"]); got != nil {
		got.subscribe("s", "/queue/q", "client-individual")
		got.expect("MESSAGE")
	}
	awaitWarm(t, owner, "b")
	for _, bad := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no store", nil, 2, "understudy broker handover STORE"},
		{"two stores", []string{"orders", "billing"}, 2, `"billing" is one too many`},
		{"a flag that is none", []string{"orders", "--two", "b"}, 2, "--two"},
		{"a flag without its value", []string{"orders", "--to"}, 2, "--to: needs a value"},
		{"a flag before the store that is none", []string{"--two", "orders"}, 2, "understudy broker handover --help"},
		{"unknown store", []string{"billing"}, 1, "they know: orders"},
		{"unknown server", []string{"orders", "--to=c"}, 1, "c does not stand for it"},
		{"nobody there", []string{"orders", "--admin", "127.0.0.1:1"}, 1, "is not reached"},
	} {
		args := append([]string{"broker", "handover"}, bad.args...)
		if bad.name != "nobody there" {
			t.Setenv("UNDERSTUDY_ADMIN", admin)
		} else {
			t.Setenv("UNDERSTUDY_ADMIN", "")
		}
		code, text, stderr := command(t, args...)
		if code != bad.code || text != "" || !strings.Contains(stderr, bad.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", bad.name, code, text, stderr)
		}
	}
	if code, _ := owner.get(t, "/handover?store=orders"); code != http.StatusMethodNotAllowed {
		t.Errorf("GET is answered %d", code)
	}
}
