package relay

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/understudy-mq/understudy/session"
)

// What an idle session was last sent may be in use for long; the rest of the chunk that it came in is not kept for its reader.
func TestTrimTakesTheChunkOfAnIdleReader(t *testing.T) {
	var kept session.Buf
	same := false
	rec := &pipe{}
	rec.feed = func(leg session.Leg, in session.Buf, out *session.Out) (int, int) {
		if leg == session.Client && kept.Len() == 0 {
			kept = in.Keep()
		} else if leg == session.Client {
			same = unsafe.Pointer(&in.Bytes()[0]) == unsafe.Add(unsafe.Pointer(&kept.Bytes()[0]), kept.Len())
		}
		out.Ref(1-leg, in)
		return in.Len(), 0
	}
	k := newRig(t, rec)
	broker := k.up()
	began := time.Now()
	_, _ = k.client.Write([]byte("kept"))
	expect(t, broker, "kept")
	in := &k.conn.legs[session.Client].in
	for deadline := time.Now().Add(5 * time.Second); in.lent.Load() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the reader does not offer the chunk with which it waits")
		}
	}
	k.conn.Trim(began) // too early: it may be about to be used
	if in.lent.Load() == nil {
		t.Fatal("taken from a session that is not idle")
	}
	k.conn.Trim(time.Now().Add(restful))
	_, _ = k.client.Write([]byte("more"))
	expect(t, broker, "more")
	k.conn.mu.Lock()
	defer k.conn.mu.Unlock()
	if same {
		t.Error("the reader goes on with the chunk that was taken")
	}
	if string(kept.Bytes()) != "kept" {
		t.Errorf("what was kept is now %q", kept.Bytes())
	}
	kept.Drop()
}

// Readers that are woken, and whose chunks are taken, at any moment lose nothing.
func TestTrimDisturbsNothing(t *testing.T) {
	k := newRig(t, &pipe{})
	broker := k.accept()
	stop := make(chan struct{})
	var trims, wg sync.WaitGroup
	trims.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				k.conn.Trim(time.Now().Add(time.Hour))
			}
		}
	})
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data)
	for _, ends := range [][2]*net.TCPConn{{k.client, broker}, {broker, k.client}} {
		wg.Go(func() {
			for p := data; len(p) > 0; p = p[min(len(p), 1000):] {
				if _, err := ends[0].Write(p[:min(len(p), 1000)]); err != nil {
					t.Error(err)
					return
				}
			}
		})
		wg.Go(func() {
			got := make([]byte, len(data))
			if _, err := io.ReadFull(ends[1], got); err != nil || !bytes.Equal(got, data) {
				t.Errorf("octets changed on the way (%v)", err)
			}
		})
	}
	wg.Wait()
	close(stop)
	trims.Wait()
	expectQuietPassage(t, k, broker)
}

// expectQuietPassage has octets pass with a rest before each, after which another goroutine reads on.
func expectQuietPassage(t *testing.T, k *rig, broker net.Conn) {
	t.Helper()
	for range 3 {
		time.Sleep(restful + 20*time.Millisecond)
		_, _ = k.client.Write([]byte("x"))
		expect(t, broker, "x")
		_, _ = broker.Write([]byte("y"))
		expect(t, k.client, "y")
	}
}
