package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/cmd/internal/overview"
)

// command runs a command that ends by itself, in this process.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out, errs bytes.Buffer
	code = run(ctx, append([]string{"understudy"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func TestStatusOfBrokerStandbyAndSidecar(t *testing.T) {
	dir := t.TempDir()
	first := start(t, "broker", "--store", "orders="+dir, "--listen", "127.0.0.1:0", "--name", "a")
	awaitRole(t, first, "active")
	second := start(t, "broker", "--store", "orders="+dir, "--listen", "127.0.0.1:0", "--name", "b")
	awaitRole(t, second, "standby")
	car := start(t, "sidecar", "--listen", "127.0.0.1:0", "--broker", "stomp://"+first.addrs["listen"], "--name", "car", "--drain-timeout", "100ms")
	say(t, first.addrs["listen"], "CONNECT\naccept-version:1.2\nhost:x\n\n\x00SEND\ndestination:/queue/q\nreceipt:1\n\nhello\x00DISCONNECT\nreceipt:2\n\n\x00")
	awaitWarm(t, first, "b")
	args := []string{"status", "--admin", first.addrs["admin"], "--admin", "http://" + second.addrs["admin"] + "/,http://" + car.addrs["admin"]}
	code, text, stderr := command(t, args...)
	if code != 0 || stderr != "" {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
	for _, want := range []string{"STORE ", "\norders ", " a,b ", "\norders  1     b (owner)", "\na       " + first.addrs["listen"], "\nb       " + second.addrs["listen"], "\ncar "} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	code, text, _ = command(t, append(args, "--json")...)
	var view overview.View
	if err := json.Unmarshal([]byte(text), &view); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v: %s", code, err, text)
	}
	if len(view.Stores) != 1 || view.Stores[0].Holder != "a" || view.Stores[0].Epoch != 1 || view.Stores[0].Messages != 1 || len(view.Servers) != 2 || len(view.Sidecars) != 1 {
		t.Errorf("%+v", view)
	}
	// The same picture, again and again, until it is told to end.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, errs := &lockedBuffer{}, &lockedBuffer{}
	ended := make(chan int)
	go func() {
		ended <- run(ctx, append([]string{"understudy"}, append(args, "--watch", "5ms")...), out, errs)
	}()
	for deadline := time.Now().Add(patienceForText); strings.Count(out.String(), "STORE  ") < 3; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("shown %d times: %s", strings.Count(out.String(), "STORE  "), errs)
		}
	}
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d: %s", code, errs)
	}
	// Where no broker answers, a sidecar still knows which store its clients wait for.
	client, err := net.Dial("tcp", car.addrs["listen"])
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(patienceForText))
	if _, err := io.WriteString(client, "CONNECT\naccept-version:1.2\nhost:x\n\n\x00"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(client, make([]byte, len("CONNECTED"))); err != nil {
		t.Fatal(err)
	}
	second.stop(t)
	first.stop(t)
	awaitPicture(t, "http://"+car.addrs["admin"], "a store in nobody's hands, and a client that waits for it", func(v overview.View) bool {
		s, _ := v.Store("orders")
		return s != nil && s.State == overview.Unheld && s.Waiting == 1 && !v.Held()
	})
}

// statusOf is what a broker shows of itself.
func statusOf(t *testing.T, r *running) *overview.Broker {
	t.Helper()
	_, body := r.get(t, "/status")
	var report overview.Report
	if err := json.Unmarshal([]byte(body), &report); err != nil || report.Broker == nil {
		t.Fatalf("%v: %s", err, body)
	}
	return report.Broker
}

// patienceForText bounds a wait that should take milliseconds.
const patienceForText = 10 * time.Second

func TestStatusOfNobody(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	absent := free.Addr().String()
	free.Close()
	code, text, stderr := command(t, "status", "--admin", absent)
	if code != 1 || stderr != "" || !strings.Contains(text, "http://"+absent+": is not reached") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, text, stderr)
	}
	for _, bad := range []string{"mq1.example", "ftp://a:1", "http://user:hunter2@a:1"} {
		if code, _, stderr := command(t, "status", "--admin", bad); code != 2 || !strings.Contains(stderr, "--admin: must") || strings.Contains(stderr, "hunter2") {
			t.Errorf("%s: exit code %d, %q", bad, code, stderr)
		}
	}
}
