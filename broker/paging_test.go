package broker

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A backlog of ten times the memory passes through a consumer, in order, while another one holds a message for the whole time and a third browses. What
// is in memory stays within its bounds.
func TestBacklogBeyondMemory(t *testing.T) {
	const budget, n = 1 << 20, 10000
	s := serving(t, func(c *Config) { c.MaxMemory, c.SegmentBytes = budget, 1<<20 })
	producer := s.connected("1.2")
	holder := s.subscriber("/queue/a", "client-individual", "prefetch-count:1")
	body := func(i int) string { return fmt.Sprintf("%06d%s", i, strings.Repeat("x", 1000)) }
	within := func() {
		t.Helper()
		if st := s.Status(); st.Bytes > budget || st.Damaged > 0 {
			t.Fatalf("got %+v", st)
		}
	}
	for i := range n {
		producer.send("SEND", "destination:/queue/a", "="+body(i))
		if i == 0 {
			holder.message(body(0))
		}
		if i%1000 == 999 {
			producer.send("SEND", "destination:/queue/b", "receipt:r", "=x")
			producer.expect("RECEIPT")
			within()
		}
	}
	eventually(t, "most of it is out", func() bool { return s.Status().Out > n-budget/1000 })
	browser := s.connected("1.2")
	browser.send("SUBSCRIBE", "id:b", "destination:/queue/a", "browser:true")
	for i := range n {
		browser.message(body(i))
	}
	browser.expect("MESSAGE", "browser", "end")
	within()
	c := s.subscriber("/queue/a", "client", "prefetch-count:200")
	for i := 1; i < n; i++ {
		m := c.message(body(i))
		if i%100 == 0 {
			c.send("ACK", "id:"+m.headers["ack"])
		}
		if i%1000 == 0 {
			within()
		}
		if i == n/2+50 { // what it has not acknowledged comes again, from the journal where need be
			c.leave()
			c = s.subscriber("/queue/a", "client", "prefetch-count:200")
			for k := i/100*100 + 1; k <= i; k++ {
				c.message(body(k), "redelivered", "true")
			}
		}
	}
	holder.leave()
	c.leave()
	d := s.subscriber("/queue/a", "client")
	d.message(body(0), "redelivered", "true")
	for i := (n-1)/100*100 + 1; i < n; i++ {
		d.message(body(i), "redelivered", "true")
	}
	d.quiet()
	within()
}

// What was out when the server ended is there for the next one, which has no more memory.
func TestBacklogBeyondMemoryOutlivesARestart(t *testing.T) {
	const budget, n = 256 << 10, 2000
	small := func(c *Config) { c.MaxMemory, c.SegmentBytes = budget, 256<<10 }
	s := serving(t, small)
	c := s.connected("1.2")
	for i := range n {
		c.send("SEND", "destination:/queue/a", fmt.Sprint("priority:", i%3), fmt.Sprint("third:", i%3), "="+fmt.Sprint(i)+strings.Repeat("x", 500))
	}
	c.sent("/queue/b", "last")
	s = s.restart(small)
	eventually(t, "it fits", func() bool {
		st := s.Status()
		return st.Out > n/2 && st.Bytes <= budget && st.Messages == n+1
	})
	c = s.connected("1.2")
	c.send("SUBSCRIBE", "id:1", "destination:/queue/a", "selector:third = '1'", "ack:auto")
	for i := 1; i < n; i += 3 {
		c.message(fmt.Sprint(i) + strings.Repeat("x", 500))
	}
	c.quiet()
	d := s.subscriber("/queue/a", "auto")
	for _, third := range []int{2, 0} {
		for i := third; i < n; i += 3 {
			d.message(fmt.Sprint(i) + strings.Repeat("x", 500))
		}
	}
	eventually(t, "all is acknowledged", func() bool { return s.Status().Messages == 1 })
}

// Messages that expire while they are out go to the queue of dead letters all the same.
func TestMessagesThatAreOutExpire(t *testing.T) {
	s := serving(t, func(c *Config) { c.MaxMemory = 64 << 10 })
	c := s.connected("1.2")
	const n = 300
	at := time.Now().Add(300 * time.Millisecond)
	for i := range n {
		c.send("SEND", "destination:/queue/a", fmt.Sprint("expires:", at.UnixMilli()), "="+fmt.Sprint(i)+strings.Repeat("x", 500))
	}
	c.sent("/queue/b", "last")
	eventually(t, "most of them are out", func() bool { return s.Status().Out > n/2 || time.Now().After(at) })
	eventually(t, "all have expired", func() bool { return s.Status().Queues == 2 })
	d := s.subscriber("/queue/DLQ", "auto")
	seen := map[string]bool{}
	for range n {
		r := d.expect("MESSAGE", "original-destination", "/queue/a")
		seen[r.body] = true
	}
	if d.quiet(); len(seen) != n {
		t.Fatalf("%d letters are dead, want %d", len(seen), n)
	}
}

// A queue whose messages cannot be read stops, and says where; nothing is skipped, and other queues go on.
func TestDamageStopsItsQueue(t *testing.T) {
	s := serving(t, func(c *Config) { c.MaxMemory = 64 << 10 })
	c := s.connected("1.2")
	const n = 300
	for i := range n {
		c.send("SEND", "destination:/queue/a", "="+fmt.Sprintf("%04d", i)+strings.Repeat("x", 500))
	}
	c.sent("/queue/b", "sound")
	eventually(t, "some is out", func() bool { return s.Status().Out > n/2 })
	files, err := filepath.Glob(filepath.Join(s.cfg.DataDir, "seg-*.log"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got %v %v", files, err)
	}
	spoiled := 0
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if i := strings.Index(string(b), "0250xxx"); i >= 0 {
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte("y"), int64(i+100)); err != nil {
				t.Fatal(err)
			}
			f.Close()
			spoiled++
		}
	}
	if spoiled != 1 {
		t.Fatalf("%d files have the message", spoiled)
	}
	d := s.subscriber("/queue/a", "auto")
	got := 0
	for {
		r, err := d.read(patience)
		if err != nil {
			t.Fatal(err)
		}
		if r.command == "ERROR" {
			if r.headers["message"] != "damaged queue" || !strings.Contains(r.body, "/queue/a") || !strings.Contains(r.body, ".log") {
				t.Fatalf("got %v", r)
			}
			break
		}
		if want := fmt.Sprintf("%04d", got); !strings.HasPrefix(r.body, want) {
			t.Fatalf("got %.10s, want %s", r.body, want)
		}
		got++
	}
	if got > 250 {
		t.Fatalf("%d messages came: one was skipped", got)
	}
	e := s.connected("1.2")
	e.send("SUBSCRIBE", "id:s", "destination:/queue/a")
	e.refused("damaged queue")
	f := s.connected("1.2")
	f.send("SEND", "destination:/queue/a", "receipt:r", "=more")
	f.refused("damaged queue", "receipt-id", "r")
	s.subscriber("/queue/b", "auto").message("sound")
	if st := s.Status(); st.Damaged != 1 {
		t.Fatalf("got %+v", st)
	}
}
