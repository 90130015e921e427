package bench

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/broker"
	"github.com/understudy-mq/understudy/broker/journal"
)

func TestOwnLogIsDurable(t *testing.T) {
	dir := t.TempDir()
	l, err := openOwn(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := closedLoop(t.Context(), 8, 50*time.Millisecond, l.append)
	if err != nil || s.frames == 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	if st := l.journal.Stats(); st.Records < uint64(s.frames) || st.Durable == 0 {
		t.Fatalf("%d records were confirmed, but %+v", s.frames, st)
	}
	if err := l.journal.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.append(body); !errors.Is(err, journal.ErrClosed) {
		t.Fatalf("error %v", err)
	}
}

// Who waits when the journal fails must be told, or a benchmark hangs.
func TestOwnLogTellsFailure(t *testing.T) {
	l := &ownLog{}
	done := make(chan error, 1)
	l.queue = append(l.queue, waiter{1, done})
	cause := errors.New("disk is gone")
	l.fail(cause)
	if err := <-done; !errors.Is(err, cause) || len(l.queue) != 0 {
		t.Fatalf("error %v", err)
	}
}

func TestRecoveryIsCounted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := fillStore(t.Context(), dir, 1000); err != nil {
		t.Fatal(err)
	}
	if err := dropCache(dir); err != nil {
		t.Fatal(err)
	}
	if s, err := recoverOnce(t.Context(), dir, 1000); err != nil || s.frames != 1000 || s.took <= 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	if _, err := recoverOnce(t.Context(), dir, 1001); err == nil || !strings.Contains(err.Error(), "1000 records came instead of 1001") {
		t.Fatalf("error %v", err)
	}
}

func TestFigureBars(t *testing.T) {
	for figure, met := range map[float64]bool{recoveryBar: true, recoveryBar - 1: false} {
		v := Versus{Result: Result{Figure: figure}}
		if v.atLeast(recoveryBar); v.Bar.Met != met {
			t.Errorf("%v records/s: %v", figure, v.Bar)
		}
	}
	for figure, met := range map[float64]bool{indexBar: true, indexBar + 0.1: false} {
		v := Versus{Result: Result{Figure: figure}}
		if v.atMost(indexBar); v.Bar.Met != met {
			t.Errorf("%v octets: %v", figure, v.Bar)
		}
	}
}

func TestSumSeries(t *testing.T) {
	text := "a_total 3\na{state=\"up\",x=\"1\"} 2\na{state=\"up\"} 5\na{state=\"down\"} 7\nab 11\n"
	for _, c := range []struct {
		name   string
		labels []string
		want   float64
		told   bool
	}{{"a", nil, 14, true}, {"a", []string{`state="up"`}, 7, true}, {"ab", nil, 11, true}, {"b", nil, 0, false}, {"a", []string{`state="no"`}, 0, false}} {
		if sum, told, err := sumSeries(strings.NewReader(text), c.name, c.labels...); sum != c.want || told != c.told || err != nil {
			t.Errorf("%s%v: %v, %v, %v", c.name, c.labels, sum, told, err)
		}
	}
	if _, _, err := sumSeries(strings.NewReader("a many\n"), "a"); err == nil {
		t.Error("no error for what is no number")
	}
}

func TestRecoveryIsAsked(t *testing.T) {
	said := `{"broker":{"stores":[{"role":"active","messages":7,"recovery_ms":2.5,"recovered_records":9}]}}`
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(said)) }))
	defer s.Close()
	u := &understudy{admin: s.Listener.Addr().String()}
	if r, err := u.recovery(); err != nil || r.Messages != 7 || r.Millis != 2.5 || r.Records != 9 {
		t.Fatalf("%+v, %v", r, err)
	}
	said = `{"broker":{"stores":[{"role":"active"}]}}`
	if _, err := u.recovery(); err == nil {
		t.Fatal("a broker that recovered nothing was believed")
	}
}

// startInProcess serves the product's broker in this process.
func startInProcess(t *testing.T) *stompBroker {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	active := make(chan struct{}, 1)
	srv, err := broker.New(broker.Config{Stores: []broker.StoreConfig{{Name: "bench", Dir: t.TempDir(), Own: true}}, Listener: ln, Changed: func(s broker.Status) {
		if s.Stores[0].Role == broker.Active {
			select {
			case active <- struct{}{}:
			default:
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-active:
	case err := <-ended:
		t.Fatal("the broker ended", err)
	}
	return &stompBroker{door: door{addr: ln.Addr().String(), host: "bench"}}
}

// Every load of the broker comes to its end at a real one and leaves its queue empty; the rates are of what was confirmed.
func TestBrokerLoads(t *testing.T) {
	b := startInProcess(t)
	if err := b.declare(t.Context(), brokerLoads); err != nil {
		t.Fatal(err)
	}
	for _, l := range brokerLoads {
		t.Run(l.name, func(t *testing.T) {
			s, err := b.offer(t.Context(), l, 30*time.Millisecond)
			if err != nil || s.frames < l.producers || s.p50 <= 0 || s.p99 < s.p50 || s.took <= 0 || (s.out > 0) != (l.consumers > 0) {
				t.Fatalf("%+v, %v", s, err)
			}
			if err := b.empty(t.Context(), l.queue(), 0); err != nil {
				t.Fatalf("the queue is not empty: %v", err)
			}
		})
	}
}

// What a load leaves behind would be part of the next one.
func TestEmptyFindsLeftovers(t *testing.T) {
	b := startInProcess(t)
	if _, err := b.door.each(t.Context(), 1, 1, func(_ int, c *client) error {
		_, err := c.pipeline("/queue/a", time.Minute, 3)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := b.empty(t.Context(), "/queue/a", 2); err == nil || !strings.Contains(err.Error(), "MESSAGE came instead of RECEIPT") {
		t.Fatalf("error %v", err)
	}
}

// Consumers that get more than was sent are a fault of the broker, not a better rate.
func TestAudienceCounts(t *testing.T) {
	b := startInProcess(t)
	a, err := b.attend(t.Context(), "/queue/a", 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.door.each(t.Context(), 1, 1, func(_ int, c *client) error {
		_, err := c.pipeline("/queue/a", time.Minute, 20)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); a.got.Load() < 20 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if err := a.finish(t.Context(), 19); err == nil || !strings.Contains(err.Error(), "got 20 messages of 19") {
		t.Fatalf("error %v", err)
	}
}
