package broker

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"pgregory.net/rapid"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// actor is one sidecar with its client.
type actor struct {
	w         *world
	session   string
	attempt   int
	peer      *peer
	ghost     *peer // a connection that the store does not know to be gone
	decoder   decoder
	effects   []simEffect
	next      int
	confirmed int
	subs      []string            // destinations, some with a selector behind; the index is the id
	holds     map[string]*simHold // by subscription and message id
	numbers   map[string]int
	browser   *simBrowser // of /queue/both, if one is under way
}

type simEffect struct {
	n      int
	frames string
	acks   []*simHold
}

type simHold struct {
	key, sub, id, basis, body string
	ack                       int // the effect that acknowledges it; 0: none
}

func (a *actor) feed(octets string) {
	if a.peer == nil {
		return
	}
	parser := newParser()
	feed(a.w.store, a.peer, &a.decoder, &parser, []byte(octets))
	a.w.store.flush()
}

// add numbers an effect. frames has a place for the number.
func (a *actor) add(acks []*simHold, frames string) {
	e := simEffect{a.next, strings.ReplaceAll(frames, "#", strconv.Itoa(a.next)), acks}
	for _, h := range acks {
		h.ack = a.next
	}
	a.next++
	a.effects = append(a.effects, e)
	a.feed(e.frames)
}

func (a *actor) body(dest string) string {
	a.numbers[dest]++
	body := fmt.Sprintf("%s%s %d", a.session[:2], dest, a.numbers[dest])
	a.w.sent[body] = 1
	return body
}

// message is the headers and the body of a new one.
func (a *actor) message() []string {
	dest := rapid.SampledFrom([]string{"/queue/one", "/queue/both", "/queue/split", "/queue/prio", "/topic/t", plainTopic, remotePrefix + sessionX + "/r"}).Draw(a.w.t, "queue")
	if dest == "/queue/prio" { // there is an order in each priority
		n := rapid.IntRange(3, 5).Draw(a.w.t, "priority")
		return []string{"destination:" + dest, fmt.Sprint("priority:", n), "=" + a.body(fmt.Sprint(dest, n))}
	}
	body := a.body(dest)
	return []string{"destination:" + dest, fmt.Sprint("odd:", a.numbers[dest]%2 == 1), "=" + body}
}

func (a *actor) produce() {
	a.add(nil, text("SEND", append([]string{"understudy-effect:#"}, a.message()...)...))
}

func (a *actor) unacked() (list []*simHold) {
	for _, h := range a.holds {
		if h.ack == 0 {
			list = append(list, h)
		}
	}
	slices.SortFunc(list, func(a, b *simHold) int { return strings.Compare(a.key, b.key) })
	return list
}

func (h *simHold) frame(command, tx string) string {
	headers := []string{"subscription:" + h.sub, "message-id:" + strings.ReplaceAll(h.id, ":", `\c`)}
	if tx != "" {
		headers = append(headers, "transaction:"+tx)
	} else {
		headers = append(headers, "understudy-effect:#")
	}
	return text(command, headers...)
}

func (a *actor) acknowledge() {
	list := a.unacked()
	if len(list) == 0 {
		return
	}
	h := list[rapid.IntRange(0, len(list)-1).Draw(a.w.t, "message")]
	command := rapid.SampledFrom([]string{"ACK", "ACK", "ACK", "NACK"}).Draw(a.w.t, "command")
	if command == "NACK" {
		a.w.sent[h.body]++
		producer, _, _ := strings.Cut(h.body, " ")
		delete(a.w.last, a.session[:2]+" "+producer) // it has not seen it any more
	}
	a.add([]*simHold{h}, h.frame(command, ""))
}

func (a *actor) transact() {
	frames := text("BEGIN", "transaction:t#")
	for range rapid.IntRange(0, 2).Draw(a.w.t, "sends") {
		frames += text("SEND", append([]string{"transaction:t#"}, a.message()...)...)
	}
	var acks []*simHold
	for _, h := range a.unacked() {
		if rapid.Bool().Draw(a.w.t, "in tx") {
			acks = append(acks, h)
			frames += h.frame("ACK", "t#")
		}
	}
	a.add(acks, frames+text("COMMIT", "understudy-effect:#", "transaction:t#"))
}

// breakOff ends the connection; the store may hear of it later, or from the next CONNECT.
func (a *actor) breakOff() {
	if a.peer == nil {
		return
	}
	a.read(rapid.IntRange(0, 3).Draw(a.w.t, "frames before the break"))
	if rapid.Bool().Draw(a.w.t, "noticed") {
		a.w.store.leave(a.peer)
		a.w.store.flush()
	} else {
		a.ghost = a.peer
	}
	a.peer = nil
}

func (a *actor) connect() {
	if a.peer != nil {
		return
	}
	a.attempt++
	text1 := text("CONNECT", "accept-version:1.2", "understudy-session:"+a.session, fmt.Sprint("understudy-attempt:", a.attempt),
		fmt.Sprint("understudy-cursor:", a.confirmed), "understudy-hold:3600000", "client-id:"+a.session[:2])
	p, hello := connectPeer(a.w.store, text1, func() { // the answer waits for what lower attempts had applied
		a.w.log.sync(a.w.log.next - 1)
		a.w.store.advance(a.w.log.durable)
		a.w.store.flush()
	})
	if hello.Command != frame.Connected {
		a.w.t.Fatalf("CONNECT was answered %s", hello.Raw)
	}
	a.peer, a.decoder = p, decoder{version: frame.V12, sidecar: true, owner: a.session}
	if g := a.ghost; g != nil { // what it had sent and was not handled
		parser := newParser()
		feed(a.w.store, g, &a.decoder, &parser, []byte(text("SEND", fmt.Sprint("understudy-effect:", a.next), "destination:/queue/one", "=ghost")))
		a.w.store.leave(g)
		a.ghost = nil
	}
	a.settled(&hello)
	for i, dest := range a.subs {
		id := strconv.Itoa(i)
		var all []string
		for _, h := range a.holds {
			if h.sub == id && h.basis != "" {
				all = append(all, h.id+"="+h.basis)
			}
		}
		slices.Sort(all)
		dest, selects, _ := strings.Cut(dest, " ")
		headers := []string{"id:" + id, "destination:" + dest, "ack:client-individual", "receipt:s" + id, "selector:" + selects}
		if dest == "/topic/t" {
			headers = append(headers, "durable-subscription-name:d")
		}
		if len(all) > 0 {
			headers = append(headers, claims(all...))
		}
		a.feed(text("SUBSCRIBE", headers...))
	}
	if a.browser != nil {
		a.feed(a.browser.frame())
	}
	for _, e := range a.effects {
		a.feed(e.frames)
	}
}

// connectPeer lets a connection in and takes the answer.
func connectPeer(s *store, octets string, wait func()) (*peer, frame.Frame) {
	var f, hello frame.Frame
	var in, out frame.Parser
	if n, _, err := in.Next([]byte(octets), &f); n == 0 || err != nil {
		panic("bad CONNECT")
	}
	h, bad := parseHello(&f)
	if bad != nil {
		panic(bad.detail)
	}
	p := &peer{}
	s.connect(p, &h)
	s.flush()
	if len(p.out) == 0 {
		wait()
	}
	n, _, err := out.Next(p.out, &hello)
	if n == 0 || err != nil {
		panic(fmt.Sprintf("no answer to CONNECT: %q %d %v", p.out, n, err))
	}
	hello.Raw = bytes.Clone(hello.Raw)
	hello.Block = bytes.Clone(hello.Block)
	p.out = p.out[n:]
	return p, hello
}

// read takes up to n frames that the store has written.
func (a *actor) read(n int) {
	for ; n > 0 && a.peer != nil; n-- {
		if len(a.peer.out) == 0 && len(a.w.store.takeOut(a.peer, nil)) == 0 {
			a.w.store.flush()
			if len(a.peer.out) == 0 {
				return
			}
		}
		var f frame.Frame
		parser := newParser()
		took, _, err := parser.Next(a.peer.out, &f)
		if err != nil || took == 0 {
			a.w.t.Fatalf("the store wrote %q: %v", a.peer.out, err)
		}
		a.take(&f)
		if a.peer != nil {
			a.peer.out = a.peer.out[took:]
		}
	}
}

func (a *actor) take(f *frame.Frame) {
	switch f.Command {
	case frame.EOL: // behind the NUL of the frame before
	case frame.Receipt:
		if _, ok := f.Get(frame.HeaderCursor); ok {
			a.settled(f)
		}
		if b := a.browser; b != nil && string(f.Value("receipt-id")) == "b" && !b.known {
			b.due, b.known = a.w.waiting(a.peer.session.subs["b"].browse.end), true
		}
		for id := range strings.SplitSeq(unescaped(f.Value(frame.HeaderGone)), ",") {
			key := strings.TrimPrefix(string(f.Value("receipt-id")), "s") + " " + id
			h := a.holds[key]
			if h == nil {
				continue
			}
			if h.ack == 0 && !a.w.lapse {
				a.w.t.Fatalf("%s lost %s to somebody else", a.session[:2], h.body)
			}
			if h.ack == 0 {
				delete(a.holds, key)
			}
			h.basis = "" // nothing to claim any more
		}
	case frame.Message:
		if string(f.Value("subscription")) == "b" {
			a.browsed(f)
			return
		}
		a.shown(f)
	default:
		a.w.t.Fatalf("%s got %s", a.session[:2], f.Raw)
	}
}

func (a *actor) shown(f *frame.Frame) {
	dest, selects, ok := strings.Cut(a.subs[atoi(string(f.Value("subscription")))], " ")
	if got := string(f.Value("destination")); got != dest {
		a.w.t.Fatalf("a subscription to %s got %s", dest, got)
	}
	if ok && (string(f.Value("odd")) == "true") != (selects == "odd = TRUE") {
		a.w.t.Fatalf("%s does not select %s", selects, f.Raw)
	}
	sub, id, body := string(f.Value("subscription")), unescaped(f.Value("message-id")), string(f.Body)
	ordinal := "1"
	if v := f.Value(frame.HeaderDelivery); v != nil {
		ordinal = string(v)
	}
	basis := fmt.Sprintf("%d.%s", a.w.store.epoch, ordinal)
	key := sub + " " + id
	if h := a.holds[key]; h != nil {
		if !a.w.lapse {
			a.w.t.Fatalf("%s was delivered again to the client that holds it", body)
		}
		h.basis = basis
		return
	}
	a.holds[key] = &simHold{key: key, sub: sub, id: id, basis: basis, body: body}
	a.w.shown[body]++
	if may, ok := a.w.sent[body]; !ok || a.w.shown[body] > may && !a.w.lapse {
		a.w.t.Fatalf("%s was shown %d times, may be %d", body, a.w.shown[body], may)
	}
	// Each consumer sees what a producer sent to a queue in order, however many compete; what a client gave back comes when it comes.
	if producer, n, _ := strings.Cut(body, " "); a.w.sent[body] == 1 && !a.w.lapse {
		key := a.session[:2] + " " + producer
		if atoi(n) <= a.w.last[key] {
			a.w.t.Fatalf("%s was shown to %s after number %d", body, a.session[:2], a.w.last[key])
		}
		a.w.last[key] = atoi(n)
	}
}

// settled takes a cursor: what it covers is done.
func (a *actor) settled(f *frame.Frame) {
	cursor := atoi(string(f.Value(frame.HeaderCursor)))
	if cursor < a.confirmed || cursor >= a.next {
		a.w.t.Fatalf("cursor %d, confirmed before %d, sent up to %d", cursor, a.confirmed, a.next-1)
	}
	if rolled := string(f.Value(frame.HeaderRolledBack)); rolled != "" {
		if !a.w.lapse {
			a.w.t.Fatalf("effects %s were rolled back", rolled)
		}
		a.rolledBack(strings.Split(rolled, ","))
	}
	a.confirmed = cursor
	for len(a.effects) > 0 && a.effects[0].n <= cursor {
		for _, h := range a.effects[0].acks {
			if h.ack != 0 && a.holds[h.key] == h {
				delete(a.holds, h.key)
			}
		}
		a.effects = a.effects[1:]
	}
}

// rolledBack is what a client does about a transaction that failed: what it acknowledged it holds again, what it sent was never sent.
func (a *actor) rolledBack(list []string) {
	for _, e := range a.effects {
		if !slices.Contains(list, strconv.Itoa(e.n)) {
			continue
		}
		for _, h := range e.acks {
			h.ack = 0
			if h.basis == "" {
				delete(a.holds, h.key)
			}
		}
		for line := range strings.SplitSeq(e.frames, "\n") {
			if body, ok := strings.CutSuffix(line, "\x00SEND"); ok {
				delete(a.w.sent, body)
			} else if body, _, ok := strings.Cut(line, "\x00"); ok {
				delete(a.w.sent, body)
			}
		}
	}
}

func unescaped(v []byte) string {
	b, err := frame.Unescape(nil, v, frame.V12)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}
