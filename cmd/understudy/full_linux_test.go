package main

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// smallDisk mounts a file system of that many octets until the test ends.
func smallDisk(t *testing.T, octets int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprint("size=", octets)); err != nil {
		t.Skipf("needs a file system of its own, to fill it: mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// get asks the child's admin listener.
func (c *child) get(path string) string {
	c.t.Helper()
	res, err := http.Get("http://" + c.addrs["admin"] + path)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(body)
}

// fill sends messages of that size until one is refused, and returns the bodies of those that were confirmed.
func fill(t *testing.T, addr string, size int) (confirmed []string) {
	t.Helper()
	c := talk(t, addr, "heart-beat:0,100")
	for n := 0; ; n++ {
		body := fmt.Sprintf("%d %s", n, strings.Repeat("x", size))
		began := time.Now()
		c.send("SEND", "destination:/queue/a", fmt.Sprint("receipt:", n), "="+body)
		beats := c.eols
		if h := c.expectOne("RECEIPT", "ERROR"); h.command == "RECEIPT" {
			confirmed = append(confirmed, body)
			continue
		} else if h.headers["message"] != "disk full" || h.headers["receipt-id"] != fmt.Sprint(n) || !strings.Contains(h.body, "nothing of this frame was stored") {
			t.Fatalf("got %v %q, want to hear of a full disk", h, h.body)
		}
		if held := time.Since(began); held < time.Second {
			t.Errorf("refused after %v, want to be held back for a second first", held)
		}
		if heard := c.eols - beats; heard < 3 { // one is the end of a frame
			t.Errorf("heard %d heart-beats while held back for a second", heard)
		}
		return confirmed
	}
}

func (c *talker) expectOne(one, other string) heard {
	c.t.Helper()
	h, err := c.read(patience)
	if err != nil || h.command != one && h.command != other {
		c.t.Fatalf("got %v %v, want %s or %s", h, err, one, other)
	}
	return h
}

// A disk that fills up: producers wait, then hear it; consumers go on, alone and in transactions; what they end makes room by itself; and over a
// kill -9 in the worst moment nothing that was confirmed is lost, or there twice.
func TestFullDisk(t *testing.T) {
	const segment, size = 2 << 20, 16 << 10
	dir := filepath.Join(smallDisk(t, 24<<20), "store")
	args := []string{"--segment", fmt.Sprint(segment), "--full-timeout", "1s"}
	b := launchBroker(t, dir, args...).serves()
	stored := fill(t, b.addrs["listen"], size)
	if len(stored)*size < 8*segment {
		t.Fatalf("%d messages were stored on 24 MiB", len(stored))
	}
	t.Logf("%d messages of %d octets on 24 MiB", len(stored), size)
	if text := b.get("/metrics"); !strings.Contains(text, "understudy_broker_blocked{store=\"store\",reason=\"disk\"} 1\n") || !strings.Contains(text, "understudy_broker_blocked{store=\"store\",reason=\"memory\"} 0\n") {
		t.Error("the metrics do not say that the disk is full")
	}
	if text := b.get("/status"); !strings.Contains(text, `"disk_full": true`) {
		t.Errorf("the status does not say that the disk is full: %s", text)
	}

	b.signal(syscall.SIGKILL)
	b.exit()
	b = launchBroker(t, dir, args...).serves()
	stored = append(stored, fill(t, b.addrs["listen"], size)...) // it may have found some more room
	c := talk(t, b.addrs["listen"])
	c.subscribe("s", "/queue/a", "client-individual", "prefetch-count:100000")
	var taken []string
	c.send("BEGIN", "transaction:t")
	for n := range len(stored) / 2 {
		h := c.expect("MESSAGE")
		taken = append(taken, h.body)
		if n%2 == 0 {
			c.send("ACK", "id:"+h.headers["ack"])
		} else {
			c.send("ACK", "id:"+h.headers["ack"], "transaction:t")
		}
	}
	c.send("COMMIT", "transaction:t", "receipt:c")
	for c.expectOne("RECEIPT", "MESSAGE").command != "RECEIPT" {
	}
	c.nc.Close()
	b.wait("space", func() bool {
		return strings.Contains(b.get("/metrics"), "understudy_broker_blocked{store=\"store\",reason=\"disk\"} 0\n")
	})
	p := talk(t, b.addrs["listen"])
	for n := range 50 {
		body := fmt.Sprint("more ", n)
		p.sent("/queue/a", body)
		stored = append(stored, body)
	}

	b.signal(syscall.SIGKILL)
	b.exit()
	b = launchBroker(t, dir, args...).serves()
	d := talk(t, b.addrs["listen"])
	d.subscribe("s", "/queue/a", "client-individual", "prefetch-count:100000")
	taken = append(taken, d.bodies(300*time.Millisecond)...)
	slices.Sort(taken)
	slices.Sort(stored)
	if !slices.Equal(taken, stored) {
		t.Errorf("%d messages came out, %d were confirmed and not yet acknowledged", len(taken), len(stored))
	}
}
