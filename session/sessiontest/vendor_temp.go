package sessiontest

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// vtemp is a temporary queue of ActiveMQ: private to the connection that names it, /remote-temp-queue/ and its broker name to all others, gone
// with its connection unless somebody else has subscribed to it under the remote name.
type vtemp struct {
	name  string // <connection id>:<ordinal>
	local string // what its owner calls it
	owner *vconn // nil: made by a SUBSCRIBE to the remote name; it stays
	queue []*vmessage
	own   bool // the sidecar's: an ordinary queue with a name of its own
}

// The two ways to name one.
const (
	localTemp  = "/temp-queue/"
	remoteTemp = "/remote-temp-queue/"
	// privateQueue begins the destinations that a sidecar makes for its own use.
	privateQueue = "/queue/understudy."
)

// temp finds or makes the temporary queue that a header names; nil if it names none.
func (b *vendor) temp(c *vconn, header string) *vtemp {
	if b.kind != ActiveMQ {
		return nil
	}
	if local, ok := strings.CutPrefix(header, localTemp); ok {
		for _, t := range b.temps {
			if t.owner == c && t.local == local {
				return t
			}
		}
		c.temps++
		t := &vtemp{name: c.id + ":" + strconv.Itoa(c.temps), local: local, owner: c}
		b.temps[t.name] = t
		return t
	}
	if strings.HasPrefix(header, privateQueue) {
		t := b.private[header]
		if t == nil {
			t = &vtemp{name: header, own: true}
			b.private[header] = t
		}
		return t
	}
	name, ok := strings.CutPrefix(header, remoteTemp)
	if !ok {
		return nil
	}
	t := b.temps[name]
	if t == nil {
		t = &vtemp{name: name}
		b.temps[name] = t
	}
	return t
}

// shownTo is the destination header of a MESSAGE from it.
func (t *vtemp) shownTo(c *vconn) string {
	if t.own {
		return t.name
	}
	if t.owner == c {
		return localTemp + t.local
	}
	return remoteTemp + t.name
}

// forgetTemps deletes what was private to a connection, with what is in it.
func (b *vendor) forgetTemps(c *vconn) {
	for name, t := range b.temps {
		if t.owner == c {
			for _, m := range t.queue {
				m.live = false
			}
			delete(b.temps, name)
		}
	}
}

func (b *vendor) sortedTemps() []*vtemp {
	if len(b.temps)+len(b.private) == 0 {
		return nil
	}
	var list []*vtemp
	for _, name := range slices.Sorted(maps.Keys(b.private)) {
		list = append(list, b.private[name])
	}
	for _, name := range slices.Sorted(maps.Keys(b.temps)) {
		list = append(list, b.temps[name])
	}
	return list
}

// reply answers a request. A queue that is not there costs the replier an ERROR, and the asker its answer.
func (b *vendor) reply(m *vmessage) {
	if m.replyTo == "" {
		return
	}
	t := b.temps[strings.TrimPrefix(m.replyTo, remoteTemp)]
	if t == nil {
		b.w.Tracef("rival: nobody is there to reply to at %s", m.replyTo)
		l := b.w.shell.link
		if live, _ := b.w.Live(); live && l != nil && b.conn(l.id) != nil && !b.book.left && !b.book.closed {
			b.w.Fail("unanswered", "%s asks for a reply to %s; the sidecar has a broker, and there is no such queue", m.item.key(), m.replyTo)
		}
		return
	}
	it := b.book.add(false, -1, 20)
	it.place, it.answerTo, it.sentAfter = 1, m.item, b.w.Downs
	b.serial++
	r := &vmessage{item: it, id: b.recordID("ID:replier-1-1:1:-1:1"), sized: it.binary(), head: []byte(noteOf(it, b.script.Version) + laneOf(it)), temp: t}
	b.commit(&change{enq: []*vmessage{r}})
}

// parsePrivate reads a SEND of the sidecar's own, to a queue of its own; nil if it is not that.
func (b *vendor) parsePrivate(c *vconn, f *frame.Frame) *vmessage {
	t := b.temp(c, b.value(c, f, "destination"))
	if t == nil || !t.own {
		return nil
	}
	b.serial++
	return &vmessage{item: &item{dest: -1, n: 1}, id: c.id + ":-1:1:" + strconv.Itoa(c.sends), body: append([]byte{}, f.Body...), temp: t,
		sized: f.HasContentLength, persistent: string(f.Value("persistent")) == "true", head: b.visible(f)}
}

// litter is what the sidecar has left behind in queues of its own though it was given it, and no crash took its acknowledgement back.
func (b *vendor) litter() (n int) {
	for _, t := range b.private {
		for _, m := range t.queue {
			if m.live && m.cameOn == b.w.Links && !m.adrift {
				n++
			}
		}
	}
	return n
}
