package broker

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
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
		if st := s.one(); st.Bytes > budget || st.Damaged > 0 {
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
	eventually(t, "most of it is out", func() bool { return s.one().Out > n-budget/1000 })
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
		st := s.one()
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
	eventually(t, "all is acknowledged", func() bool { return s.one().Messages == 1 })
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
	eventually(t, "most of them are out", func() bool { return s.one().Out > n/2 || time.Now().After(at) })
	eventually(t, "all have expired", func() bool { return s.one().Queues == 2 })
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
	eventually(t, "some is out", func() bool { return s.one().Out > n/2 })
	spoilt.Store(s.cfg.Stores[0].Dir, true)
	files, err := filepath.Glob(filepath.Join(s.cfg.Stores[0].Dir, "seg-*.log"))
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
			defer func() { // what a test leaves behind is sound
				if _, err := f.WriteAt([]byte("x"), int64(i+100)); err != nil {
					t.Error(err)
				}
				f.Close()
			}()
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
	if st := s.one(); st.Damaged != 1 {
		t.Fatalf("got %+v", st)
	}
}

// A queue that ends with messages that are out ends them in the journal too, without reading them: no segment stays for them.
func TestDissolvedQueueEndsWhatIsOut(t *testing.T) {
	cfg := Config{MaxMemory: tight, Listener: unbound{}}.withDefaults()
	log := &memory{t: t, next: 1, deleted: map[journal.Segment]bool{}}
	s := log.recovered(0, time.Unix(1e9, 0), &cfg)
	x, d := benchPeer(s, text("CONNECT", "accept-version:1.2", "understudy-session:"+sessionX, "understudy-attempt:1", "client-id:c"))
	d.owner = sessionX
	parser := newParser()
	do := func(command string, headers ...string) {
		feed(s, x, d, &parser, []byte(text(command, headers...)))
		s.flush()
	}
	durable := func() {
		log.sync(log.next - 1)
		s.advance(log.durable)
		s.flush()
		s.looks = 0
	}
	do("SUBSCRIBE", "id:d", "destination:/topic/t", "durable-subscription-name:d", "ack:client-individual", "prefetch-count:2")
	const n = 100
	for i := range n {
		do("SEND", fmt.Sprint("understudy-effect:", 2*i+1), "destination:/temp-queue/a", "=temporary")
		do("SEND", fmt.Sprint("understudy-effect:", 2*i+2), "destination:/topic/t", "=durable")
		durable()
	}
	if s.messages != 2*n || s.outs < n {
		t.Fatalf("%d messages, %d out", s.messages, s.outs)
	}
	do("UNSUBSCRIBE", "id:d", "durable-subscription-name:d", "receipt:u")
	do("DISCONNECT")
	for range 200 {
		durable()
	}
	if s.messages != 0 || s.memory != 0 || s.outs != 0 || len(s.queues) != 0 || len(s.lanes) != 0 || len(s.paging.dissolving) != 0 {
		t.Fatalf("%d messages, %d out, %d octets are left", s.messages, s.outs, s.memory)
	}
	for range 2 * segmentRecords { // whatever is dead goes when a segment is full
		s.scratch = appendOrigin(s.scratch[:0], origin{})
		if _, err := s.append(journal.Entry{Type: recAck, Payload: append(s.scratch, 0)}, pend{}); err != nil {
			t.Fatal(err)
		}
		durable()
	}
	if left := len(log.records); left > 3*segmentRecords {
		t.Fatalf("%d records are left of %d", left, log.next-1)
	}
	s = log.recovered(log.next-1, time.Unix(2e9, 0), &cfg)
	if s.messages != 0 {
		t.Fatalf("%d messages are back", s.messages)
	}
}

// What is left in memory of a message that is out is at most 48 octets, all in all, and what is accounted for is not less than what it takes.
func TestIndexOfABacklogIsSmall(t *testing.T) {
	const n = 200000
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	s, log := benchStore()
	s.cfg.MaxMemory = 1 << 20
	p, d := benchPeer(s, "CONNECT\naccept-version:1.2\n\n\x00")
	parser := newParser()
	send := []byte(text("SEND", "destination:/queue/a", "=x"))
	before := heap()
	for i := range n {
		feed(s, p, d, &parser, send)
		if i%64 == 63 {
			s.advance(log.lsn)
			s.flush()
		}
	}
	s.cfg.MaxMemory = 1
	for range 100 {
		s.paging.another()
		s.flush()
	}
	took, accounted := heap()-before, s.memory
	if s.outs != n || took > 48*n || took > accounted*21/20 {
		t.Fatalf("%d of %d messages are out: they take %d octets, %.1f each; accounted for are %d", s.outs, n, took, float64(took)/n, accounted)
	}
	t.Logf("%.2f octets each, accounted for %.2f", float64(took)/n, float64(accounted)/n)
	runtime.KeepAlive(s)
}

// A claim of what is not there is answered without a look at the whole backlog, and one of what is there is granted, wherever it is.
func TestClaimsAmongManyMessages(t *testing.T) {
	s, _ := benchStore()
	q := s.queue([]byte("/queue/a"))
	const n = 3 * filterWorth
	l := q.lane(0)
	for i := range uint64(n) {
		l.pushOut(s.newEntry(msgID{n: i}, journal.LSN(i+1), 0, journal.Position{Segment: 1}, 100, outRecovered), time.Time{})
	}
	before := s.memory
	gone := map[msgID]basis{}
	for i := range uint64(1000) {
		gone[msgID{hi: 1, n: i}] = basis{}
	}
	if found := s.find(q, gone); len(found) != 0 || q.filter == nil {
		t.Fatalf("%d messages were found", len(found))
	}
	wrong := 0
	for id := range gone {
		if q.filter.has(s.hash(id)) {
			wrong++
		}
	}
	if wrong > 20 {
		t.Errorf("%d of 1000 ids pass the filter", wrong)
	}
	s.through = 1 << 40
	s.add(q, &message{id: msgID{n: n}, lsn: n + 1, data: []byte("late")})
	for i := range uint64(n + 1) {
		want := map[msgID]basis{{n: i}: {}}
		if i > 20 && i < n-20 {
			if !q.filter.has(s.hash(msgID{n: i})) {
				t.Fatalf("message %d does not pass the filter", i)
			}
			continue
		}
		m := s.find(q, want)[msgID{n: i}]
		if m == nil || m.id.n != i || m.lsn != journal.LSN(i+1) {
			t.Fatalf("message %d: got %+v", i, m)
		}
	}
	s.tick()
	if q.filter != nil || s.memory < before {
		t.Fatalf("the filter stays, %d octets, %d before", s.memory, before)
	}
}
