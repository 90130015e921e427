package broker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
)

func TestClientErrors(t *testing.T) {
	s := serving(t, func(c *Config) { c.MaxRecord, c.MaxSubscriptions, c.MaxTransactions = 256<<10, 3, 2 })
	subscribe := text("SUBSCRIBE", "id:1", "destination:/queue/a")
	long := strings.Repeat("x", 1025)
	for _, test := range []struct{ name, frames, message, body string }{
		{"unknown command", text("SENDX"), "unknown command", "SENDX"},
		{"server's command", text("MESSAGE"), "unknown command", "MESSAGE"},
		{"second CONNECT", text("CONNECT"), "already connected", ""},
		{"no destination", text("SEND", "=x"), "malformed SEND", "destination"},
		{"empty destination", text("SEND", "destination:"), "malformed SEND", "destination"},
		{"long destination", text("SEND", "destination:"+long), "malformed SEND", "1024"},
		{"bad escape", text("SEND", "destination:/queue/a", `k:\t`), "malformed SEND", "escape"},
		{"bad escape in a name", text("SUBSCRIBE", "destination:/queue/a", `id:\x`), "malformed SUBSCRIBE", "escape"},
		{"no id", text("SUBSCRIBE", "destination:/queue/a"), "malformed SUBSCRIBE", "id"},
		{"bad ack mode", text("SUBSCRIBE", "id:1", "destination:/queue/a", "ack:maybe"), "malformed SUBSCRIBE", "client-individual"},
		{"bad prefetch", text("SUBSCRIBE", "id:1", "destination:/queue/a", "activemq.prefetchSize:-1"), "malformed SUBSCRIBE", "prefetch"},
		{"selector", text("SUBSCRIBE", "id:1", "destination:/queue/a", "selector:a = "), "invalid selector", "position 5"},
		{"same id twice", subscribe + subscribe, "subscription exists", ""},
		{"too many subscriptions", subscribe + strings.ReplaceAll(subscribe, "id:1", "id:2") + strings.ReplaceAll(subscribe, "id:1", "id:3") +
			strings.ReplaceAll(subscribe, "id:1", "id:4"), "too many subscriptions", "3"},
		{"UNSUBSCRIBE of nothing", text("UNSUBSCRIBE", "id:7"), "no such subscription", ""},
		{"UNSUBSCRIBE without id", text("UNSUBSCRIBE"), "malformed UNSUBSCRIBE", "id"},
		{"ACK without id", text("ACK"), "unknown acknowledgement", ""},
		{"ACK of another epoch", text("ACK", "id:9.1.1.1"), "unknown acknowledgement", ""},
		{"ACK of no number", text("ACK", "id:whatever"), "unknown acknowledgement", ""},
		{"BEGIN without name", text("BEGIN"), "malformed BEGIN", "transaction"},
		{"BEGIN twice", text("BEGIN", "transaction:t") + text("BEGIN", "transaction:t"), "transaction exists", ""},
		{"too many transactions", text("BEGIN", "transaction:1") + text("BEGIN", "transaction:2") + text("BEGIN", "transaction:3"), "too many transactions", "2"},
		{"COMMIT of nothing", text("COMMIT", "transaction:t"), "no such transaction", ""},
		{"ABORT of nothing", text("ABORT", "transaction:t"), "no such transaction", ""},
		{"SEND into nothing", text("SEND", "transaction:t", "destination:/queue/a"), "no such transaction", ""},
		{"ACK in a transaction of nothing", text("BEGIN", "transaction:t") + text("ACK", "transaction:t", "id:1.1.1.1"), "unknown acknowledgement", ""},
		{"transaction too big", text("BEGIN", "transaction:t") + strings.Repeat(text("SEND", "transaction:t", "destination:/queue/a", "="+strings.Repeat("x", 60000)), 6),
			"transaction too big", "262144"},
		{"body too big", text("SEND", "destination:/queue/a", "="+strings.Repeat("x", 256<<10)), "limit exceeded", "body"},
		{"header without colon", "SEND\nnonsense\n\n\x00", "malformed frame", "colon"},
		{"content-length of 2 GB", "SEND\ndestination:/queue/a\ncontent-length:2147483648\n\n", "limit exceeded", "body"},
		{"content-length on SUBSCRIBE", "SUBSCRIBE\nid:1\ndestination:/queue/a\ncontent-length:5\n\nhello\x00", "malformed frame", "no body"},
		{"no NUL", "SEND\ndestination:/queue/a\ncontent-length:1\n\nxx\x00", "malformed frame", "NUL"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := s.connected("1.2")
			// What is pipelined behind is ignored.
			c.write(strings.Replace(test.frames, "\n", "\nreceipt:r\n", 1) + text("SEND", "destination:/queue/never", "=never"))
			r, err := c.read(patience)
			for err == nil && r.command == "RECEIPT" {
				r, err = c.read(patience)
			}
			if err != nil || r.command != "ERROR" || r.headers["message"] != test.message || !strings.Contains(r.body, test.body) {
				t.Fatalf("got %v %v, want ERROR %q with %q", r, err, test.message, test.body)
			}
			c.closed()
		})
	}
	s.subscriber("/queue/never", "auto").quiet()
}

func TestErrorNamesTheReceipt(t *testing.T) {
	s := serving(t)
	c := s.connected("1.2")
	c.send("COMMIT", "transaction:t", `receipt:a\cb`)
	c.refused("no such transaction", "receipt-id", "a:b")
}

func TestNotStomp(t *testing.T) {
	s := serving(t, func(c *Config) { c.ConnectTimeout = 100 * time.Millisecond })
	for name, test := range map[string]struct{ octets, message string }{
		"HTTP":               {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "malformed frame"},
		"TLS":                {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x9c", 300), "limit exceeded"},
		"garbage":            {strings.Repeat("\xff\xfe", 100), "limit exceeded"},
		"nothing":            {"", "connect timeout"},
		"half a CONNECT":     {"CONNECT\naccept-ver", "connect timeout"},
		"SEND first":         {text("SEND", "destination:/queue/a"), "not connected"},
		"too many headers":   {"CONNECT\n" + strings.Repeat("a:b\n", 1001), "limit exceeded"},
		"too large a header": {"CONNECT\na:" + strings.Repeat("b", 70000), "limit exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			c := s.dial()
			_, _ = c.nc.Write([]byte(test.octets))
			c.refused(test.message)
		})
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	s := serving(t, func(c *Config) { c.MaxConnections = 2 })
	s.connected("1.2")
	c := s.connected("1.2")
	s.dial().refused("too many connections")
	c.leave()
	eventually(t, "a connection is free", func() bool { return s.Status().Connections < 2 })
	s.connected("1.2")
}

func TestSessionsAndQueuesAreLimited(t *testing.T) {
	s := serving(t, func(c *Config) { c.MaxSessions, c.MaxQueues = 2, 2 })
	for n := range 5 { // one that has done nothing is forgotten when it leaves
		c, _ := s.sidecar(fmt.Sprintf("%032x", n), 1)
		c.leave()
		eventually(t, "the session is forgotten", func() bool { return s.one().Sessions == 0 })
	}
	c, _ := s.sidecar(sessionX, 1)
	c.effect(1, "SEND", "destination:/queue/a", "=one")
	c.leave()
	s.sidecar(sessionY, 1)
	d := s.dial()
	d.connectSidecar(fmt.Sprintf("%032x", 9), 1)
	d.refused("too many sessions")
	for command, headers := range map[string][]string{"SEND": {"destination:/queue/c"}, "SUBSCRIBE": {"id:1", "destination:/queue/c"}} {
		d := s.connected("1.2")
		d.sent("/queue/b", "two")
		d.sent("/topic/c", "no queue")
		d.send(command, headers...)
		d.refused("too many queues")
	}
}

// A client that does not collect its receipts is not read, so that they cannot pile up.
func TestClientThatDoesNotReadIsHeldBack(t *testing.T) {
	s := serving(t)
	c := s.connected("1.2")
	one := []byte(text("SEND", "destination:/topic/a", "receipt:"+strings.Repeat("r", 4000)))
	const most = 64 << 20
	sent := 0
	for {
		if sent > most {
			t.Fatalf("%d octets were taken", sent)
		}
		_ = c.nc.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := c.nc.Write(one)
		if sent += n; err != nil {
			break
		}
	}
	for range sent / len(one) { // reading sets it going again
		c.expect("RECEIPT")
	}
}

// A client far ahead of the disk is not read, and loses nothing by it.
func TestClientAheadOfTheDiskIsHeldBack(t *testing.T) {
	s := serving(t, func(c *Config) { c.MaxPending = 1 })
	c := s.connected("1.2")
	var b strings.Builder
	const n = 2000
	for i := range n {
		b.WriteString(text("SEND", "destination:/queue/a", fmt.Sprint("receipt:", i), "=x"))
	}
	go func() { _, _ = c.nc.Write([]byte(b.String())) }()
	for i := range n {
		c.expect("RECEIPT", "receipt-id", fmt.Sprint(i))
	}
	if got := s.one().Messages; got != n {
		t.Fatalf("got %d messages, want %d", got, n)
	}
}

func TestFullMemoryHoldsBackThenRefuses(t *testing.T) {
	s := serving(t, func(c *Config) { c.MaxMemory, c.FullTimeout = 64<<10, 200*time.Millisecond })
	body := strings.Repeat("x", 10000)
	c := s.connected("1.2")
	for range 6 {
		c.sent("/queue/a", body, "persistent:false") // what is in no journal can only be in memory
	}
	c.send("SEND", "destination:/queue/a", "receipt:r", "="+body)
	c.quiet() // held back, not refused yet
	d := s.subscriber("/queue/a", "client-individual")
	m := d.message(body)
	d.send("ACK", "id:"+m.headers["ack"]) // makes room
	c.expect("RECEIPT", "receipt-id", "r")
	c.send("SEND", "destination:/queue/a", "receipt:r", "persistent:false", "="+body)
	c.expect("RECEIPT", "receipt-id", "r") // the durable one went out
	c.send("SEND", "destination:/queue/a", "receipt:r", "persistent:false", "="+body)
	c.refused("out of memory", "receipt-id", "r")
}

func TestStandbyAnswersAtOnceAndTakesOver(t *testing.T) {
	s := serving(t)
	s.connected("1.2").sent("/queue/a", "one")
	standby := start(t, s.cfg.Stores[0].Dir)
	for _, connect := range []string{text("CONNECT", "accept-version:1.2"), text("CONNECT", "accept-version:1.2", "understudy-session:"+sessionX, "understudy-attempt:1")} {
		c := standby.dial()
		c.write(connect)
		c.refused("standby", "understudy-error", "standby")
	}
	eventually(t, "the owner is known", func() bool { return standby.one().Owner.Epoch == 1 })
	waiting := standby.dial() // says CONNECT only when the roles have changed
	c, _ := s.sidecar(sessionX, 1)
	direct := s.connected("1.2")
	go s.cancel()
	if r := c.expect("ERROR"); r.headers["understudy-moved"] == "" {
		t.Fatalf("got %v, want understudy-moved", r)
	}
	if r := direct.refused("server stops"); r.headers["understudy-moved"] != "" {
		t.Fatalf("got %v: a direct client sees no header of ours", r)
	}
	standby.active()
	if st := standby.one(); st.Epoch != 2 || st.Recovered == 0 || st.Owner.PID != 0 {
		t.Fatalf("got %+v", st)
	}
	waiting.connect("1.2")
	standby.subscriber("/queue/a", "auto").message("one")
}

func TestFencedServerConfirmsNothing(t *testing.T) {
	s := serving(t)
	c, _ := s.sidecar(sessionX, 1)
	d := s.connected("1.2")
	if err := os.WriteFile(filepath.Join(s.cfg.Stores[0].Dir, "epoch-00000002"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.send("SEND", "understudy-effect:1", "destination:/queue/a", "=one")
	c.refused("store lost", "understudy-error", "fenced")
	if r := d.refused("store lost"); r.headers["understudy-error"] != "" {
		t.Fatalf("got %v: a direct client sees no header of ours", r)
	}
	s.servesAgain(3)
	s.sidecar(sessionX, 2)
}

func TestDamagedJournalIsNotServed(t *testing.T) {
	s := serving(t)
	c := s.connected("1.2")
	for range 20 {
		c.sent("/queue/a", strings.Repeat("x", 1000))
	}
	dir := s.cfg.Stores[0].Dir
	spoilt.Store(dir, true)
	s.stop()
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, name := range files {
		if b, err := os.ReadFile(name); err == nil && strings.Contains(string(b), strings.Repeat("x", 1000)) {
			b[strings.Index(string(b), strings.Repeat("x", 1000))+500] ^= 1
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	s = start(t, dir)
	select {
	case err := <-s.ended:
		if !errors.Is(err, journal.ErrDamaged) {
			t.Fatalf("got %v, want ErrDamaged", err)
		}
		s.cancel()
		s.cancel = nil
	case <-time.After(patience):
		t.Fatal("the server did not end")
	}
}

func TestConfigIsChecked(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	stores := []StoreConfig{{Name: "x", Dir: "x"}}
	for _, cfg := range []Config{{}, {Stores: stores}, {Listener: ln}, {Stores: stores, Listener: ln, Prefetch: -1}} {
		if _, err := New(cfg); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: got %v, want ErrConfig", cfg, err)
		}
	}
}

func TestStandbyEndsInOrder(t *testing.T) {
	s := serving(t)
	standby := start(t, s.cfg.Stores[0].Dir)
	c := standby.dial()
	eventually(t, "the connection is accepted", func() bool { return standby.Status().Connections == 1 })
	standby.stop()
	c.closed()
}
