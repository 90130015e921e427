package broker

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// The lobby is where connections begin: they belong to no store before their CONNECT, and a probe, which asks for all of them, never does. What is answered
// here waits for no store.

// acceptLoop only accepts. It ends when the listener is closed.
func (s *Server) acceptLoop() {
	pause := 5 * time.Millisecond
	for {
		nc, err := s.cfg.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.cfg.Logger.Warn("accept failed", "error", err, "pause", pause.String())
			time.Sleep(pause)
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		s.admit(nc)
	}
}

// spareConnections are admitted beyond the limit, to be told about it.
const spareConnections = 16

// admit starts serving a connection, or turns it away.
func (s *Server) admit(nc net.Conn) {
	c := newConn(s, nc)
	n := int(s.connections.Add(1))
	l := s.lobby
	l.lock()
	defer l.unlock()
	if l.ended != nil || n > s.cfg.MaxConnections+spareConnections {
		s.connections.Add(-1)
		nc.Close()
		return
	}
	l.conns[c] = struct{}{}
	l.served.Add(1)
	s.accepted.Inc()
	if n > s.cfg.MaxConnections {
		c.turnAway(l, nil, faultf("too many connections", "this server has %d connections, the limit", s.cfg.MaxConnections))
	}
	go s.serve(c)
}

func (s *Server) serve(c *conn) {
	c.serve()
	t := c.lock()
	delete(t.conns, c)
	t.unlock()
	s.connections.Add(-1)
	t.served.Done()
}

// choose finds the store that a CONNECT wants. A sidecar that names none is given one only if there is no other, now or after the next take-over. A direct
// client cannot name one, as a rule: it gets what this server is there for, else what it happens to serve.
func (s *Server) choose(h *hello) (*view, *fault) {
	all := s.views()
	var own, served []*view
	for _, v := range all {
		if v.own {
			own = append(own, v)
		}
		if v.tenure != nil {
			served = append(served, v)
		}
	}
	switch {
	case h.store != "":
		return wanted(all, h.store)
	case len(all) == 1:
		return all[0], nil
	case h.sidecar && len(all) > 0:
		return nil, whichStore(all)
	case len(own) == 1:
		return own[0], nil
	case len(own) > 1, len(served) > 1:
		return nil, whichStore(all)
	case len(served) == 1:
		return served[0], nil
	}
	return nil, standbyFault("this server serves no store now", all)
}

func (s *Server) views() []*view {
	keepers := s.all()
	all := make([]*view, len(keepers))
	for i, k := range keepers {
		all[i] = k.view.Load()
	}
	return all
}

// wanted finds a store by its UUID or its name.
func wanted(all []*view, store string) (*view, *fault) {
	var named []*view
	for _, v := range all {
		if v.uuid == store {
			return v, nil
		}
		if v.name == store {
			named = append(named, v)
		}
	}
	switch len(named) {
	case 0:
		if slices.ContainsFunc(all, (*view).unknown) {
			return nil, standbyFault("this server has not yet seen which stores it stands for", all)
		}
		f := faultf("wrong store", "this server knows the stores %s", listStores(all))
		f.code, f.header = frame.CodeWrongStore, storesHeader(all)
		return nil, f
	case 1:
		return named[0], nil
	}
	return nil, whichStore(named)
}

// unknown reports whether the keeper has not seen yet which store it is there for.
func (v *view) unknown() bool { return v.uuid == "" && v.role == Standby }

func whichStore(all []*view) *fault {
	f := faultf("which store", "this server knows several stores, and CONNECT names none of them by %s: %s", frame.HeaderStore, listStores(all))
	f.code, f.header = frame.CodeWhichStore, storesHeader(all)
	return f
}

func standbyFault(detail string, all []*view) *fault {
	f := faultf("standby", "%s", detail)
	f.code, f.header = frame.CodeStandby, storesHeader(all)
	return f
}

// notServing says why a CONNECT for the store cannot be answered.
func (v *view) notServing() *fault {
	detail := "this server does not own the store " + v.name + " now"
	switch {
	case v.role == Recovering:
		detail = "this server is taking the store " + v.name + " over and will serve it in a moment"
	case v.role == Standby && v.holder != "":
		detail += ": " + v.holder + " does"
	}
	f := faultf("standby", "%s", detail)
	f.code = frame.CodeStandby
	return f
}

func listStores(all []*view) string {
	names := make([]string, len(all))
	for i, v := range all {
		if names[i] = v.name; v.uuid != "" {
			names[i] = fmt.Sprintf("%s (%s)", v.uuid, v.name)
		}
	}
	return enumerate(names)
}

// storesHeader is the line that tells a sidecar of all stores, those first that are served here. None comes twice: nobody would believe any of it.
func storesHeader(all []*view) string {
	var list []frame.Store
	add := func(s frame.Store) {
		if !slices.ContainsFunc(list, func(other frame.Store) bool { return other.UUID == s.UUID }) {
			list = append(list, s)
		}
	}
	for _, v := range all {
		if v.tenure != nil {
			add(frame.Store{UUID: v.uuid, Name: v.name, Epoch: v.epoch})
		}
	}
	for _, v := range all {
		if v.tenure == nil {
			add(frame.Store{UUID: v.uuid, Name: v.name})
		}
	}
	return string(frame.AppendStores(nil, list))
}

// answerProbe tells a prober what there is, and waits until it leaves.
func (c *conn) answerProbe(h *hello) error {
	all := c.srv.views()
	if !slices.ContainsFunc(all, func(v *view) bool { return v.tenure != nil }) {
		return c.refuse(nil, standbyFault("this server serves no store now", all))
	}
	l := c.lock()
	c.peer.out = appendConnected(c.peer.out, h.version, c.srv.cfg.Version, "probe", 0, 0)
	c.peer.out = append(c.peer.out, storesHeader(all)...)
	c.peer.out = append(c.peer.out, "\n\x00\n"...)
	c.kick()
	l.unlock()
	for { // until the prober leaves, or has had its time
		c.start, c.end = 0, 0
		if err := c.fill(); err != nil {
			return errDeaf
		}
	}
}
