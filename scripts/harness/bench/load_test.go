package bench

import (
	"math"
	"strings"
	"testing"
	"time"
)

// An answerer is what the loads are made for: each of them must come to its end with it, and notice what is wrong.
func TestLoads(t *testing.T) {
	for name, perWrite := range map[string]int{"frame by frame": 1, "batched": batch} {
		t.Run(name, func(t *testing.T) {
			a, err := startAnswerer(false)
			if err != nil {
				t.Fatal(err)
			}
			defer a.close()
			sent, got := make([]int, 2), make([]int, 2)
			if _, err := each(t.Context(), a.addr(), 2, perWrite, func(i int, c *client) (err error) {
				sent[i], err = c.pipeline("/queue/a", 20*time.Millisecond, math.MaxInt)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if _, err := each(t.Context(), a.addr(), 2, perWrite, func(i int, c *client) (err error) {
				got[i], err = c.consume("/queue/a", 0, 20*time.Millisecond)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if min(sent[0], sent[1], got[0], got[1]) == 0 {
				t.Fatalf("sent %v and got %v messages", sent, got)
			}
			if _, err := each(t.Context(), a.addr(), 1, perWrite, func(_ int, c *client) error {
				if n, err := c.pipeline("/queue/a", time.Minute, 3*window+1); err != nil || n != 3*window+1 {
					t.Errorf("sent %d of %d: %v", n, 3*window+1, err)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if _, err := each(t.Context(), a.addr(), 1, perWrite, func(_ int, c *client) error {
				took, err := c.pingPong("/queue/a", 20*time.Millisecond)
				if err == nil && (len(took) == 0 || took[0] <= 0 || took[0] > took[len(took)-1]) {
					t.Errorf("ping-pong took %v", took)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A RECEIPT that is missing, or comes twice, must not pass for one that is right.
func TestReceiptsAreChecked(t *testing.T) {
	a, err := startAnswerer(false)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	c, err := connect(t.Context(), a.addr(), 1<<10)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if err := c.write("SEND\ndestination:/queue/a\nreceipt:5\n\n\x00"); err != nil {
		t.Fatal(err)
	}
	if err := c.receipt(4); err == nil || !strings.Contains(err.Error(), "RECEIPT 5 came instead of 4") {
		t.Fatalf("error %v", err)
	}
}

// What a sidecar relies on: effects are confirmed by a cursor, and only by it.
func TestAnswererSpeaksThePairedContract(t *testing.T) {
	a, err := startAnswerer(true)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	c, err := connect(t.Context(), a.addr(), 1<<10)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	talk := func(say, want string) {
		t.Helper()
		if err := c.write(say); err != nil {
			t.Fatal(err)
		}
		if err := c.expect(want); err != nil {
			t.Fatal(err)
		}
	}
	talk("CONNECT\naccept-version:1.2\nunderstudy-session:00\nunderstudy-cursor:3\n\n\x00", "CONNECTED")
	if c.f.number(hCursor) != 3 {
		t.Fatalf("cursor %s, want 3", c.f.value[hCursor])
	}
	talk("SEND\nunderstudy-effect:4\nreceipt:a\n\n\x00ACK\nunderstudy-effect:5\n\n\x00", "RECEIPT")
	for c.f.number(hCursor) != 5 { // one RECEIPT, or one for each if the two were read apart
		if err := c.expect("RECEIPT"); err != nil {
			t.Fatal(err)
		}
	}
	talk("SUBSCRIBE\nid:1\ndestination:/queue/a\nreceipt:b\n\n\x00", "RECEIPT")
	if string(c.f.value[hReceiptID]) != "b" {
		t.Fatalf("receipt-id %s, want b", c.f.value[hReceiptID])
	}
	if err := c.expect("MESSAGE"); err != nil {
		t.Fatal(err)
	}
}
