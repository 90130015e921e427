package broker

import (
	"testing"
	"time"
)

// A server that stops has told its clients, and does not wait for those that have nothing more to say and do not leave.
func TestStopDoesNotWaitForSilentClients(t *testing.T) {
	s := serving(t, func(c *Config) { c.LingerTimeout = patience })
	idle := s.connected("1.2")
	began := time.Now()
	s.stop()
	if took := time.Since(began); took > time.Second {
		t.Errorf("stopped in %v", took)
	}
	idle.refused("server stops")
}

// A client that is still talking when it is refused hears why: its connection is not reset under it.
func TestClientThatTalksHearsTheLastWord(t *testing.T) {
	s := serving(t, func(c *Config) { c.LingerTimeout = patience })
	c := s.connected("1.2")
	c.send("NONSENSE")
	for began := time.Now(); time.Since(began) < 3*lingerQuiet; time.Sleep(lingerQuiet / 10) {
		c.send("SEND", "destination:/queue/a", "=more")
	}
	c.refused("unknown command")
}

// One that never stops talking has had its time.
func TestClientThatTalksForEverIsLeft(t *testing.T) {
	s := serving(t, func(c *Config) { c.LingerTimeout = 2 * lingerQuiet })
	c := s.connected("1.2")
	c.send("NONSENSE")
	began := time.Now()
	for time.Since(began) < patience {
		if _, err := c.nc.Write([]byte("\n")); err != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if took := time.Since(began); took < 2*lingerQuiet || took > patience/2 {
		t.Errorf("left after %v", took)
	}
}
