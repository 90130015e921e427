package gossip

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// housekeeping is how often presences are looked at again without an event.
	housekeeping = time.Second
	// grace is how long a node whose word was heard counts as alive before the membership knows it.
	grace = 5 * time.Second
	// forgetAfter is how long a node that is gone is remembered.
	forgetAfter = time.Minute
	// refuteGap is the least time between two answers to somebody who speaks under our name.
	refuteGap = time.Second
	// relayLimit is how many records of one message are passed on: more at once is a state exchange between parts that have caught up
	// by themselves.
	relayLimit = 16
	// fanout is how many members get a message directly, beside the gossip; reliably, if it is too big for a packet.
	fanout         = 64
	fanoutReliable = 16
)

// run owns what is received and what is sent, until ctx ends.
func (n *Node) run(ctx context.Context) {
	tick := time.NewTicker(housekeeping)
	defer tick.Stop()
	news := newHints()
	for {
		n.logMoved()
		select {
		case <-ctx.Done():
			return
		case b := <-n.packets:
			n.receive(b, news)
		case b := <-n.states:
			n.receive(b, news)
		case <-n.membership:
			n.look(time.Now())
		case <-n.dirty:
			n.sendOwn()
		case s := <-n.outbox:
			n.spread("suspicion", suspicionName(s.Suspicion), encodeSuspicion(s.Suspicion, s.sequence))
		case now := <-tick.C:
			n.look(now)
			n.cfg.Metrics.strained(n.ml.GetHealthScore())
		}
	}
}

// receive acts on one message.
func (n *Node) receive(b []byte, news *hints) {
	m, err := decode(b)
	if err != nil {
		reason := "malformed"
		if errors.Is(err, errVersion) {
			reason = "version"
		}
		n.cfg.Metrics.dropped(reason)
		n.cfg.Logger.Debug("gossip: drop message", "error", err)
		return
	}
	now := time.Now()
	switch m.kind {
	case typeSuspicion:
		n.cfg.Metrics.received("suspicion")
		if s := m.suspicion; s.By != n.cfg.Name && news.accept(s, m.sequence, now) {
			n.queueBroadcast(suspicionName(s), b)
			select {
			case n.hints <- s:
			default:
				n.cfg.Metrics.dropped("hints-full")
			}
		}
	case typeAnnouncement, typeState:
		n.cfg.Metrics.received(map[byte]string{typeAnnouncement: "announcement", typeState: "state"}[m.kind])
		n.mu.Lock()
		learnt := n.learn(m.records, now)
		known := n.ledger
		n.mu.Unlock()
		if len(learnt) <= relayLimit {
			for _, node := range learnt {
				n.queueBroadcast(node, encodeAnnouncement(known[node]))
			}
		}
	}
}

// look compares what is known with the membership.
func (n *Node) look(now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refresh(now, false)
}

// logMoved reports what refresh found, outside of the lock.
func (n *Node) logMoved() {
	n.mu.Lock()
	moved := n.moved
	n.moved = nil
	n.mu.Unlock()
	for _, p := range moved {
		n.cfg.Logger.Info("gossip: peer "+p.Presence.String(), "node", p.Node, "kind", p.Kind.String(), "endpoints", strings.Join(p.Endpoints, " "))
	}
}

// learn merges records and names the nodes of which something new was learnt; the caller holds mu.
func (n *Node) learn(in []record, now time.Time) []string {
	room := maxNodes - len(n.ledger)
	accepted := make([]record, 0, len(in))
	for _, r := range in {
		_, known := n.ledger[r.Node]
		switch {
		case r.Node == n.own.Node && (r.Member != n.own.Member || r.compare(newRecord(n.own)) != 0):
			n.defend(r, now)
		case !known && room <= 0:
			n.cfg.Metrics.dropped("too-many-nodes")
		default:
			if !known {
				room--
			}
			accepted = append(accepted, r)
		}
	}
	merged, learnt := n.ledger.merge(accepted)
	n.ledger = merged
	for _, node := range learnt {
		r, known := merged[node], n.notes[node]
		if known == nil || known.member != r.Member {
			fresh := &note{member: r.Member, heard: now, presence: unheard}
			if known != nil {
				fresh.presence = known.presence
			}
			n.notes[node] = fresh
		}
		n.notes[node].since = now
	}
	n.refresh(now, len(learnt) > 0)
	return learnt
}

// defend answers a later word under our name, which is not ours: the clock went back between two lives of ours, or two nodes share a
// name. Either way our present word must count; if there are two of us, each says so once in refuteGap.
func (n *Node) defend(r record, now time.Time) {
	if r.compare(newRecord(n.own)) < 0 || now.Sub(n.refuted) < refuteGap || r.Incarnation+1 >= maxIncarnation {
		return
	}
	n.refuted = now
	n.own.Incarnation = r.Incarnation + 1
	n.ledger, _ = n.ledger.merge([]record{newRecord(n.own)})
	n.cfg.Logger.Warn("gossip: somebody announces under our name; give every node its own", "name", n.own.Node, "member", r.Member)
	kick(n.dirty)
}

// refresh brings presences and the view up to date; the caller holds mu. changed says that the ledger did.
func (n *Node) refresh(now time.Time, changed bool) {
	live := n.members.all()
	for node, r := range n.ledger {
		have := n.notes[node]
		_, alive := live[r.Member]
		have.seen = have.seen || alive
		p := Lost
		switch {
		case r.Leaving:
			p = Left
		case alive, node == n.own.Node, !have.seen && now.Sub(have.heard) < grace:
			p = Alive
		}
		if p != have.presence {
			have.presence, have.since, changed = p, now, true
			if node != n.own.Node {
				n.moved = append(n.moved, Peer{r.Announcement, p, now})
			}
		}
	}
	if n.forget(now) || changed || max(1, len(live)) != n.view.Members {
		n.publish(len(live))
	}
}

// forget drops those that are gone for long.
func (n *Node) forget(now time.Time) bool {
	kept := n.ledger
	for node, have := range n.notes {
		if have.presence != Alive && now.Sub(have.since) > forgetAfter {
			if len(kept) == len(n.ledger) {
				kept = maps.Clone(n.ledger)
			}
			delete(kept, node)
			delete(n.notes, node)
		}
	}
	forgotten := len(kept) != len(n.ledger)
	n.ledger = kept
	return forgotten
}

func (n *Node) publish(live int) {
	v := View{Members: max(1, live), Peers: make([]Peer, 0, len(n.ledger))}
	for _, node := range slices.Sorted(maps.Keys(n.ledger)) {
		have := n.notes[node]
		p := Peer{Announcement: n.ledger[node].Announcement, Presence: have.presence, Since: have.since}
		if p.Presence == Alive && p.Kind == Sidecar {
			v.Sidecars++
		}
		v.Peers = append(v.Peers, p)
	}
	n.view = v
	close(n.changed)
	n.changed = make(chan struct{})
	n.cfg.Metrics.viewed(v)
}

// sendOwn broadcasts our announcement.
func (n *Node) sendOwn() {
	n.mu.Lock()
	msg := encodeAnnouncement(n.ledger[n.own.Node])
	n.mu.Unlock()
	if len(msg) <= maxPacket {
		n.spread("announcement", n.cfg.Name, msg)
		return
	}
	// Streams block, and so have a goroutine of their own; only the newest word counts.
	select {
	case <-n.large:
	default:
	}
	n.large <- msg
}

// spread sends a message to the members directly, which takes one packet time, and hands it to the gossip, which survives lost packets.
func (n *Node) spread(kind, name string, msg []byte) {
	n.queueBroadcast(name, msg)
	for _, a := range n.others(fanout) {
		if err := n.ml.SendToAddress(a, msg); err != nil {
			n.cfg.Logger.Debug("gossip: send", "to", a.Addr, "error", err)
			continue
		}
		n.cfg.Metrics.sent(kind)
	}
}

// queueBroadcast leaves what is too big for a packet to the push/pull: the queue would keep it for ever.
func (n *Node) queueBroadcast(name string, msg []byte) {
	if len(msg) <= maxPacket {
		n.queue.QueueBroadcast(named{name, msg})
	}
}

func suspicionName(s Suspicion) string { return "suspicion/" + s.By + "/" + string(s.Target) }

// others are at most limit members but us, at random.
func (n *Node) others(limit int) []memberlist.Address {
	var as []memberlist.Address
	for member, addr := range n.members.all() {
		if member != n.member {
			as = append(as, memberlist.Address{Addr: addr, Name: member})
		}
	}
	rand.Shuffle(len(as), func(i, j int) { as[i], as[j] = as[j], as[i] })
	return as[:min(limit, len(as))]
}
