package main

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

// Two brokers with a store each: a listener leads to the store that it names, or shares its clients over both, or refuses those who cannot know which
// one is meant; and a store that nobody serves is there to be seen.
func TestSidecarChoosesAStore(t *testing.T) {
	orders := start(t, "broker", "--store", "orders="+t.TempDir(), "--listen", "127.0.0.1:0")
	billing := start(t, "broker", "--store", "billing="+t.TempDir(), "--listen", "127.0.0.1:0")
	brokers := " broker=stomp://" + orders.addrs["listen"] + " broker=stomp://" + billing.addrs["listen"]
	s := start(t, "sidecar", "--listen", "127.0.0.1:0", "--broker", "stomp://"+orders.addrs["listen"], "--broker", "stomp://"+billing.addrs["listen"], "--probe-interval", "100ms",
		"--hold-timeout", "300ms", "--group", "named listen=127.0.0.1:0 store=billing"+brokers, "--group", "shared listen=127.0.0.1:0 store=spread"+brokers)
	await := func(what string, found func(status string) bool) {
		t.Helper()
		status := ""
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if _, status = s.get(t, "/status"); found(status) {
				return
			}
		}
		t.Fatalf("%s: %s\n%s", what, status, s.log)
	}
	await("three groups know two stores each", func(status string) bool {
		return strings.Count(status, `"holder": "`+orders.addrs["listen"]+`"`) == 3 && strings.Count(status, `"holder": "`+billing.addrs["listen"]+`"`) == 3
	})

	answer := say(t, s.addrs["listen"], hello)
	for _, part := range []string{"ERROR\n", "error-code:which-store\n", "orders", "billing", "--store NAME", "--store spread"} {
		if !strings.Contains(answer, part) {
			t.Errorf("who names no store is told %q, without %q", answer, part)
		}
	}
	const life = hello + "SEND\ndestination:/queue/q\nreceipt:1\n\nhello\x00DISCONNECT\nreceipt:2\n\n\x00"
	for range 3 {
		if answer := say(t, s.addrs["listen-named"], life); !strings.Contains(answer, "receipt-id:2\n") {
			t.Fatalf("named: %q\n%s", answer, s.log)
		}
	}
	if _, body := billing.get(t, "/status"); !strings.Contains(body, `"messages": 3`) {
		t.Errorf("billing has not three messages: %s", body)
	}
	shared := false
	for i := 0; i < 40 && !shared; i++ { // one at a time, so each draws anew
		if answer := say(t, s.addrs["listen-shared"], life); !strings.Contains(answer, "receipt-id:2\n") {
			t.Fatalf("shared: %q\n%s", answer, s.log)
		}
		_, some := orders.get(t, "/status")
		_, others := billing.get(t, "/status")
		shared = !strings.Contains(some, `"messages": 0`) && !strings.Contains(others, `"messages": 3`)
	}
	if !shared {
		t.Error("forty clients that share went to one store")
	}

	billing.stop(t)
	await("nobody serves billing", func(status string) bool { return strings.Contains(status, `"unserved_since"`) })
	if answer := say(t, s.addrs["listen-named"], hello); !strings.Contains(answer, "error-code:hold-timeout\n") {
		t.Errorf("who wants what nobody serves is told %q", answer)
	}
	if _, metrics := s.get(t, "/metrics"); !strings.Contains(metrics, `understudy_sidecar_store_unserved_seconds{listener="named",group="named",store="billing"}`) {
		t.Errorf("no figure of the store that nobody serves:\n%s", metrics)
	}
}

// An owner whose directory is not the one it was makes another store of the same name: a client is told, and not brought to whichever comes first.
func TestSidecarRefusesNamesakes(t *testing.T) {
	one := start(t, "broker", "--store", "orders="+t.TempDir(), "--listen", "127.0.0.1:0")
	other := start(t, "broker", "--store", "orders="+t.TempDir(), "--listen", "127.0.0.1:0")
	s := start(t, "sidecar", "--listen", "127.0.0.1:0", "--broker", "stomp://"+one.addrs["listen"], "--broker", "stomp://"+other.addrs["listen"], "--store", "orders", "--probe-interval", "100ms")
	status := ""
	for deadline := time.Now().Add(5 * time.Second); strings.Count(status, `"holder": "127`) != 2; time.Sleep(10 * time.Millisecond) {
		if _, status = s.get(t, "/status"); time.Now().After(deadline) {
			t.Fatalf("two stores: %s\n%s", status, s.log)
		}
	}
	answer := say(t, s.addrs["listen"], hello)
	for _, part := range []string{"ERROR\n", "error-code:which-store\n", "2 stores have the name orders", "served by " + one.addrs["listen"], "served by " + other.addrs["listen"], "--store UUID"} {
		if !strings.Contains(answer, part) {
			t.Errorf("the client is told %q, without %q", answer, part)
		}
	}
	uuid := regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`).FindString(answer)
	named := start(t, "sidecar", "--listen", "127.0.0.1:0", "--broker", "stomp://"+one.addrs["listen"], "--broker", "stomp://"+other.addrs["listen"], "--store", uuid)
	if answer := say(t, named.addrs["listen"], hello+"DISCONNECT\nreceipt:1\n\n\x00"); !strings.Contains(answer, "receipt-id:1\n") {
		t.Errorf("who names it by its UUID %s is told %q", uuid, answer)
	}
}
