package interop

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// TestForwarderResets: what passes is unchanged, and a reset reaches both sides as one.
func TestForwarderResets(t *testing.T) {
	broker, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	f, err := startForwarder(broker.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	near, err := net.Dial("tcp", f.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := broker.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	for _, c := range []net.Conn{near, far} {
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := near.Write([]byte("there")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(far, got); err != nil || string(got) != "there" {
		t.Fatalf("%q, %v came through", got, err)
	}
	if n := f.reset(); n != 1 {
		t.Errorf("%d connections were reset, want 1", n)
	}
	for name, c := range map[string]net.Conn{"client": near, "broker": far} {
		if _, err := c.Read(got); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the %s's side saw %v, want a reset", name, err)
		}
	}
}
