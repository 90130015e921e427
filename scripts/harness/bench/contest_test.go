package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Every writer's record is in the file when append returns, none is torn or mixed with another, and one batch holds several.
func TestBareLoopWrites(t *testing.T) {
	dir := t.TempDir()
	l, err := openBare(dir)
	if err != nil {
		t.Fatal(err)
	}
	const writers, each = 16, 20
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for k := range each {
				record := bytes.Repeat([]byte(fmt.Sprintf("%02d:%02d;", i, k)), 100)
				if err := l.append(record); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "bare"))
	if err != nil || len(text) != bareSegment {
		t.Fatal(len(text), err)
	}
	for i := range writers {
		for k := range each {
			if !bytes.Contains(text, bytes.Repeat([]byte(fmt.Sprintf("%02d:%02d;", i, k)), 100)) {
				t.Fatalf("record %d of writer %d is not there, or not whole", k, i)
			}
		}
	}
}

// A write that fails reaches the writer: a rate of failures would be a fine rate.
func TestBareLoopTellsErrors(t *testing.T) {
	l, err := openBare(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l.file.Close()
	if _, err := closedLoop(t.Context(), 2, time.Second, l.append); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("error %v", err)
	}
	_ = l.close()
}

// What the answering peer confirms is written, and a write that fails is not confirmed.
func TestSocketsConfirmWhatIsWritten(t *testing.T) {
	w := &contest{opt: Options{Data: t.TempDir()}}
	defer w.close()
	log, err := w.openBare()
	if err != nil {
		t.Fatal(err)
	}
	a, err := startLogging(false, log)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	b := &stompBroker{door: door{addr: a.addr(), host: "bench"}, forgets: true}
	for _, l := range brokerLoads {
		if s, err := b.offer(t.Context(), l, 20*time.Millisecond); err != nil || s.frames < l.producers || s.out != 0 {
			t.Fatalf("%s: %+v, %v", l.name, s, err)
		}
	}
	text, err := os.ReadFile(log.file.Name())
	if err != nil || !bytes.HasPrefix(text, slices.Concat(body, body)) {
		t.Fatal("nothing was written", err)
	}
	log.file.Close()
	if s, err := b.offer(t.Context(), brokerLoads[0], 20*time.Millisecond); err == nil {
		t.Fatalf("confirmed without being written: %+v", s)
	}
}

func TestClosedLoopCounts(t *testing.T) {
	s, err := closedLoop(t.Context(), 3, 30*time.Millisecond, func([]byte) error { time.Sleep(time.Millisecond); return nil })
	if err != nil || s.frames < 3 || s.frames > 90 || s.p50 < time.Millisecond || s.p99 < s.p50 || s.took < 30*time.Millisecond {
		t.Fatalf("%+v, %v", s, err)
	}
}

// fixed is a contender that takes the same number of messages in each round.
func fixed(id Contender, frames int) *contender {
	return &contender{id, string(id), func(context.Context, load, time.Duration) (sample, error) {
		return sample{frames: frames, took: time.Second, p50: time.Millisecond, p99: 2 * time.Millisecond}, nil
	}}
}

func contestOf(t *testing.T, ours, activemq, rabbitmq, bare int) []Versus {
	t.Helper()
	w := &contest{opt: Options{Rounds: 2, Logf: func(string, ...any) {}}, loads: brokerLoads}
	for id, n := range map[Contender]int{Ours: ours, ActiveMQ: activemq, RabbitMQ: rabbitmq, Bare: bare} {
		w.enter(fixed(id, n))
	}
	if err := w.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w.lines()
}

func TestBrokerBars(t *testing.T) {
	for _, c := range []struct {
		name                     string
		activemq, rabbitmq, bare int
		missed                   []string
	}{
		{"all met", 200, 333, 3333, nil},
		{"ActiveMQ too near", 201, 100, 1000, []string{"16 activemq", "4x100 activemq", "4x100+consumers activemq", "64 activemq"}},
		{"RabbitMQ too near in bulk", 100, 400, 1000, []string{"4x100 rabbitmq", "4x100+consumers rabbitmq"}},
		{"RabbitMQ too near", 100, 501, 1000, []string{"16 rabbitmq", "4x100 rabbitmq", "4x100+consumers rabbitmq", "64 rabbitmq"}},
		{"far from the disk", 100, 100, 3334, []string{"16 bare", "4x100 bare", "64 bare"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			lines := contestOf(t, 1000, c.activemq, c.rabbitmq, c.bare)
			var missed []string
			for _, l := range lines {
				if l.Bar != nil && !l.Bar.Met {
					missed = append(missed, l.Case+" "+l.With)
				}
			}
			slices.Sort(missed)
			if !slices.Equal(missed, c.missed) {
				t.Fatalf("missed %v, want %v", missed, c.missed)
			}
			if n, of := Missed(lines); n != len(c.missed) || of != 11 || len(lines) != 3*len(brokerLoads) {
				t.Fatalf("%d of %d bars missed in %d lines", n, of, len(lines))
			}
		})
	}
}

// A contender that confirms nothing must not be a good one to be compared with.
func TestNothingConfirmedIsAnError(t *testing.T) {
	w := &contest{opt: Options{Rounds: 1, Logf: func(string, ...any) {}}, loads: brokerLoads[:1]}
	w.enter(fixed(ActiveMQ, 0))
	if err := w.run(t.Context()); err == nil || !strings.Contains(err.Error(), "activemq, 1: not one message") {
		t.Fatalf("error %v", err)
	}
}

func TestVersusSaysBothSides(t *testing.T) {
	lines := contestOf(t, 1000, 100, 100, 1000)
	var out, table strings.Builder
	if err := WriteJSON(&out, lines[:1]); err != nil {
		t.Fatal(err)
	}
	var l map[string]any
	if err := json.Unmarshal([]byte(out.String()), &l); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"case", "figure", "unit", "p50_us", "p99_us", "compared_with", "theirs", "ratio", "rounds", "setting", "broker_data_on", "cpus"} {
		if _, ok := l[name]; !ok {
			t.Errorf("%q lacks %s", out.String(), name)
		}
	}
	if err := WriteVersus(&table, About{Data: "disk"}, lines); err != nil || !strings.Contains(table.String(), "met: at least 5.0 × activemq") {
		t.Errorf("%v: %s", err, table.String())
	}
}

func TestMissingSaysWhatToDo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if err := Missing(string(ActiveMQ)); err == nil || !strings.Contains(err.Error(), "scripts/install-brokers") {
		t.Fatalf("error %v", err)
	}
	if err := errors.Join(Missing(string(Bare)), Missing(string(Sockets))); err != nil {
		t.Fatal(err)
	}
}
