package broker

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// memory is a journal in memory with segments, heads and deletion as the real one has them. A crash keeps what was durable and any part of
// what was not.
type memory struct {
	t       *rapid.T
	store   *store
	epoch   uint64
	records []memoryRecord
	next    journal.LSN
	seg     journal.Segment
	inSeg   int
	durable journal.LSN
	deleted map[journal.Segment]bool
}

type memoryRecord struct {
	journal.Record
	account journal.Account
}

const segmentRecords = 12

func (j *memory) Append(e journal.Entry) (journal.LSN, journal.Segment, error) {
	if j.inSeg >= segmentRecords {
		j.open()
	}
	j.put(e)
	j.inSeg++
	return j.next - 1, j.seg, nil
}

func (j *memory) open() {
	j.seg++
	j.inSeg = 0
	for _, e := range j.store.head() {
		j.put(e)
	}
}

func (j *memory) put(e journal.Entry) {
	r := journal.Record{LSN: j.next, Segment: j.seg, Epoch: j.epoch, Type: e.Type, Payload: bytes.Clone(e.Payload)}
	j.records = append(j.records, memoryRecord{r, journal.Account{Live: e.Live, Ends: slices.Clone(e.Ends)}})
	j.next++
}

// sync makes everything up to through durable, and deletes the segments that are dead then.
func (j *memory) sync(through journal.LSN) {
	j.durable = through
	live, current := map[journal.Segment]int{}, journal.Segment(0)
	for _, r := range j.records {
		if r.LSN <= through {
			live[r.Segment] += r.account.Live
			current = r.Segment
			for _, end := range r.account.Ends {
				live[end]--
			}
		}
	}
	for again := true; again; {
		again = false
		for seg := range live {
			if seg >= current || j.deleted[seg] || live[seg] != 0 {
				continue
			}
			free := true
			for _, r := range j.records {
				for _, end := range r.account.Ends {
					free = free && (r.Segment != seg || end == seg || j.deleted[end])
				}
			}
			if free {
				j.deleted[seg], again = true, true
			}
		}
	}
	j.records = slices.DeleteFunc(j.records, func(r memoryRecord) bool { return j.deleted[r.Segment] })
}

// recovered is a new owner's store, made from what the journal kept up to last.
func (j *memory) recovered(last journal.LSN, now time.Time, cfg *Config) *store {
	j.records = slices.DeleteFunc(j.records, func(r memoryRecord) bool { return r.LSN > last })
	j.next = last + 1
	j.epoch++
	s := newStore(cfg, newCounters(newMetricSet()))
	s.log, s.uuid, s.epoch, s.now = j, "store", j.epoch, now
	rc := newRecovery(s)
	for _, r := range j.records {
		a, err := rc.visit(r.Record)
		if err != nil {
			j.t.Fatalf("recover record %d: %v", r.LSN, err)
		}
		if a.Live != r.account.Live || !slices.Equal(a.Ends, r.account.Ends) {
			j.t.Fatalf("record %d of type %d was appended with %+v and recovered with %+v", r.LSN, r.Type, r.account, a)
		}
	}
	j.store = s
	j.open()
	rc.finish()
	j.sync(j.next - 1)
	s.advance(j.durable)
	s.flush()
	return s
}

// world is a store, sidecars that keep the contract, and what their clients have seen.
type world struct {
	t      *rapid.T
	cfg    Config
	log    *memory
	store  *store
	now    time.Time
	lapse  bool // windows may end: then a message may be shown again
	actors []*actor
	sent   map[string]int // body: how often it may be shown
	shown  map[string]int
	last   map[string]int // consumer, producer and queue: the last number that was shown
}

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
	subs      []string            // destinations; the index is the id
	holds     map[string]*simHold // by subscription and message id
	numbers   map[string]int
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

func TestStoreKeepsTheContract(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { simulate(t, false) })
}

func TestStoreLosesNothingWhenWindowsEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { simulate(t, true) })
}

func simulate(t *rapid.T, lapse bool) {
	w := &world{t: t, now: time.Unix(1e9, 0), lapse: lapse, sent: map[string]int{}, shown: map[string]int{}, last: map[string]int{}}
	w.cfg = Config{MaxMemory: 1 << 30, MaxOut: rapid.SampledFrom([]int{200, 1 << 20}).Draw(t, "out"), Listener: unbound{}, Prefetch: 3}.withDefaults()
	w.log = &memory{t: t, next: 1, deleted: map[journal.Segment]bool{}}
	w.store = w.log.recovered(0, w.now, &w.cfg)
	for i, session := range []string{sessionX, sessionY, strings.Repeat("5", 32)} {
		a := &actor{w: w, session: session, holds: map[string]*simHold{}, numbers: map[string]int{}, next: 1}
		a.subs = [][]string{{"/queue/one", "/queue/both"}, {"/queue/both"}, nil}[i]
		w.actors = append(w.actors, a)
	}
	for range rapid.IntRange(1, 120).Draw(t, "steps") {
		w.step()
	}
	w.settle()
}

func (w *world) step() {
	a := w.actors[rapid.IntRange(0, len(w.actors)-1).Draw(w.t, "actor")]
	switch what := rapid.IntRange(0, 99).Draw(w.t, "what"); {
	case what < 20:
		a.produce()
	case what < 32:
		a.acknowledge()
	case what < 42:
		a.transact()
	case what < 62:
		a.read(rapid.IntRange(0, 5).Draw(w.t, "frames"))
	case what < 78:
		w.sync()
	case what < 84:
		a.breakOff()
	case what < 94:
		a.connect()
	case what < 97:
		w.crash()
	default:
		w.now = w.now.Add(100 * time.Millisecond)
		if w.lapse {
			w.now = w.now.Add(time.Second)
		}
		w.store.now = w.now
		if w.lapse {
			w.store.tick()
			w.store.flush()
		}
	}
}

func (w *world) sync() {
	if from := w.log.durable; w.log.next-1 > from {
		through := journal.LSN(rapid.Uint64Range(uint64(from), uint64(w.log.next-1)).Draw(w.t, "durable"))
		w.log.sync(through)
		w.store.advance(through)
		w.store.flush()
	}
}

func (w *world) crash() {
	last := journal.LSN(rapid.Uint64Range(uint64(w.log.durable), uint64(w.log.next-1)).Draw(w.t, "kept"))
	for _, a := range w.actors {
		if a.peer != nil {
			a.read(rapid.IntRange(0, 3).Draw(w.t, "frames before the crash"))
		}
		a.peer, a.ghost = nil, nil
	}
	w.store = w.log.recovered(last, w.now, &w.cfg)
}

// settle lets everybody finish, and then judges.
func (w *world) settle() {
	for round := 0; ; round++ {
		busy := w.store.messages > 0
		for _, a := range w.actors {
			a.connect()
			a.read(1 << 20)
			for _, h := range a.unacked() {
				a.add([]*simHold{h}, h.frame("ACK", ""))
			}
			busy = busy || len(a.effects) > 0
		}
		w.log.sync(w.log.next - 1)
		w.store.advance(w.log.durable)
		w.store.flush()
		if w.lapse {
			w.now = w.now.Add(time.Second)
			w.store.now = w.now
			w.store.tick()
			w.store.flush()
		}
		if !busy {
			break
		}
		if round > 200 {
			for _, a := range w.actors {
				w.t.Logf("%s: effects %v, holds %v", a.session[:2], a.effects, a.unacked())
			}
			for _, q := range w.store.queues {
				w.t.Logf("queue %s: %d messages, %d gates, next %+v", q.name, q.count, q.gates, q.peek())
				for _, sub := range q.subs {
					w.t.Logf("subscription %+v", *sub)
				}
			}
			w.t.Fatalf("it never ends: %d messages", w.store.messages)
		}
	}
	for body, may := range w.sent {
		if n := w.shown[body]; n < 1 || n > may && !w.lapse {
			w.t.Fatalf("%s was shown %d times, may be %d", body, n, may)
		}
	}
	if w.store.memory != 0 || len(w.store.queues) > 2 {
		w.t.Fatalf("%d octets in %d queues are left", w.store.memory, len(w.store.queues))
	}
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

func (a *actor) produce() {
	dest := rapid.SampledFrom([]string{"/queue/one", "/queue/both"}).Draw(a.w.t, "queue")
	a.add(nil, text("SEND", "understudy-effect:#", "destination:"+dest, "="+a.body(dest)))
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
		dest := rapid.SampledFrom([]string{"/queue/one", "/queue/both"}).Draw(a.w.t, "queue")
		frames += text("SEND", "transaction:t#", "destination:"+dest, "="+a.body(dest))
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
		fmt.Sprint("understudy-cursor:", a.confirmed), "understudy-hold:3600000")
	p, hello := connectPeer(a.w.store, text1, func() { // the answer waits for what lower attempts had applied
		a.w.log.sync(a.w.log.next - 1)
		a.w.store.advance(a.w.log.durable)
		a.w.store.flush()
	})
	if hello.Command != frame.Connected {
		a.w.t.Fatalf("CONNECT was answered %s", hello.Raw)
	}
	a.peer, a.decoder = p, decoder{version: frame.V12, sidecar: true}
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
		headers := []string{"id:" + id, "destination:" + dest, "ack:client-individual", "receipt:s" + id}
		if len(all) > 0 {
			headers = append(headers, claims(all...))
		}
		a.feed(text("SUBSCRIBE", headers...))
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
	case frame.Receipt:
		if _, ok := f.Get(frame.HeaderCursor); ok {
			a.settled(f)
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
		a.message(f)
	default:
		a.w.t.Fatalf("%s got %s", a.session[:2], f.Raw)
	}
}

func (a *actor) message(f *frame.Frame) {
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
