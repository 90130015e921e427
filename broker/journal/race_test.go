//go:build linux

package journal

import (
	"bufio"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var races = flag.Int("races", 30, "how often candidates race for a store in each test of that")

// contender is a candidate in this process that takes the store again and again, and leaves it when it is told whom to name.
type contender struct {
	node  string
	leave chan string
}

// baton is of a log in which each record ends the one before it, so that segments go: it says where the last one is.
type baton Segment

func (l *baton) account(segment Segment) (a Account) {
	a.Live = 1
	if *l > 0 {
		a.Ends = []Ending{{Segment: Segment(*l)}}
	}
	*l = baton(segment)
	return a
}

func (l *baton) append(j *Journal, e Entry) error {
	e.Account = l.account(0)
	at, err := appendTo(j, e)
	*l = baton(at.Segment)
	return err
}

// holding is what a contender reports when it has the store.
type holding struct {
	*contender
	j *Journal
}

func (c *contender) run(ctx context.Context, t *testing.T, dir string, opt Options, holders, records *atomic.Int32, held chan<- holding) {
	for {
		var n int32
		var last baton
		j, err := Open(ctx, dir, opt, func(r Record) (Account, error) {
			n = int32(binary.LittleEndian.Uint32(r.Payload))
			return last.account(r.Segment), nil
		})
		if err != nil {
			if ctx.Err() == nil {
				t.Errorf("%s: %v", c.node, err)
			}
			return
		}
		if n := holders.Add(1); n != 1 {
			t.Errorf("%s is one of %d holders", c.node, n)
		}
		if all := records.Load(); n != all {
			t.Errorf("the last record that %s has is %d, of %d", c.node, n, all)
		}
		var next string
		select {
		case held <- holding{c, j}:
			next = <-c.leave
		case <-ctx.Done(): // it was faster than the end of the test
		}
		for range 3 {
			e := Entry{Type: 1, Payload: binary.LittleEndian.AppendUint32(nil, uint32(records.Add(1)))}
			if err := last.append(j, e); err != nil {
				t.Errorf("%s: %v", c.node, err)
			}
		}
		holders.Add(-1)
		if err := j.HandOver(next); err != nil {
			t.Errorf("%s: %v", c.node, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(300 * time.Millisecond): // long enough for another one to take it, whatever its place
		}
	}
}

// TestRaceInProcess hands a store to and fro between four candidates whose polls coincide: one holder at a time, and always the one whose turn it is.
func TestRaceInProcess(t *testing.T) {
	dir := quickDir(t)
	synctest.Test(t, func(t *testing.T) {
		rng := newRand(t)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var holders, records atomic.Int32
		held := make(chan holding)
		const n = 4
		for i := range n {
			c := &contender{node: string(rune('a' + i)), leave: make(chan string)}
			opt := Options{Node: c.node, SegmentBytes: 64 << 10, hasty: true, Standing: func() Standing { return Standing{Rank: i / 2} }}
			wg.Go(func() { c.run(ctx, t, dir, opt, &holders, &records, held) })
		}
		h := <-held
		var longest [2]time.Duration
		for epoch := h.j.Epoch(); ; epoch++ {
			if h.j.Epoch() != epoch {
				t.Errorf("epoch %d, want %d", h.j.Epoch(), epoch)
			}
			if epoch > uint64(*races) {
				break
			}
			for len(h.j.Candidates()) < n-1 {
				time.Sleep(showEvery)
			}
			list := h.j.Candidates()
			named, want := "", list[0].Node
			if rng.IntN(2) == 0 {
				want = list[rng.IntN(n-1)].Node
				named = want
			}
			start := time.Now()
			h.leave <- named
			h = <-held
			how := 0
			if named != "" {
				how = 1
			}
			longest[how] = max(longest[how], time.Since(start))
			if h.node != want {
				t.Errorf("epoch %d went to %s, want %s (named %q)", h.j.Epoch(), h.node, want, named)
			}
		}
		if longest[0] > 2*defaultPoll || longest[1] > 2*defaultPoll {
			t.Errorf("to the first in order it took %v at most, to the one that was named %v", longest[0], longest[1])
		}
		cancel()
		h.leave <- ""
		wg.Wait()
	})
}

// contend is a helper process that stands for the store again and again. It says "sees N" (candidates, itself included), "open EPOCH" and "left"; a line on its input
// makes it leave the store to the node that is named there.
func contend(dir, node string) int {
	say := func(format string, a ...any) { fmt.Fprintf(os.Stdout, format+"\n", a...) }
	rank := int(node[0])
	orders := make(chan string)
	go func() {
		sc := bufio.NewScanner(os.Stdin)
		for sc.Scan() {
			orders <- sc.Text()
		}
		os.Exit(0)
	}()
	for {
		opt := Options{
			SegmentBytes: 64 << 10, Node: node, hasty: true, Standing: func() Standing { return Standing{Rank: rank} },
			Candidates: func(list []Candidate) { say("sees %d", len(list)) },
		}
		durable := make(chan struct{}, 1000)
		opt.Durable = func(LSN) { durable <- struct{}{} }
		var last baton
		j, err := Open(context.Background(), dir, opt, func(r Record) (Account, error) { return last.account(r.Segment), nil })
		if err != nil {
			say("failed %v", err)
			return 1
		}
		if err := last.append(j, Entry{Type: 1, Payload: content(j.Epoch(), 0)}); err != nil {
			say("failed %v", err)
			return 1
		}
		<-durable
		say("open %d", j.Epoch())
		if err := j.HandOver(<-orders); err != nil {
			say("failed %v", err)
			return 1
		}
		say("left")
		time.Sleep(200 * time.Millisecond)
	}
}

func startContender(t testing.TB, dir, node string) *process {
	return startHelper(t, dir, "JOURNAL_TEST_NODE="+node)
}

func lastLines(ps map[string]*process) map[string][]string {
	said := map[string][]string{}
	for n, p := range ps {
		p.mu.Lock()
		said[n] = slices.Clone(p.lines[max(0, len(p.lines)-3):])
		p.mu.Unlock()
	}
	return said
}

// count of lines that begin so.
func (p *process) count(prefix string) (n int) {
	for _, l := range p.lines {
		if strings.HasPrefix(l, prefix) {
			n++
		}
	}
	return n
}

// TestRaceOfProcesses lets candidates in processes of their own have a store in turn: the holder leaves it to one by name or to whoever is first, or is killed. Never do
// two hold one epoch, and, as far as this machine keeps them running, the order is kept.
func TestRaceOfProcesses(t *testing.T) {
	rng := newRand(t)
	dir := quickDir(t)
	nodes := []string{"a", "b", "c"}
	ps := map[string]*process{}
	for _, n := range nodes {
		ps[n] = startContender(t, dir, n)
	}
	epochs := map[string]string{}
	// next waits for the one that opens the store next, and checks that nobody has had that epoch.
	next := func(was map[string]int) string {
		t.Helper()
		for limit := time.Now().Add(10 * time.Second); time.Now().Before(limit); time.Sleep(500 * time.Microsecond) {
			for n, p := range ps {
				p.mu.Lock()
				opened, lines := p.count("open ") > was[n], p.lines
				p.mu.Unlock()
				if !opened {
					continue
				}
				for _, l := range slices.Backward(lines) {
					if e, ok := strings.CutPrefix(l, "open "); ok {
						if other, twice := epochs[e]; twice {
							t.Fatalf("epoch %s: first %s, now %s", e, other, n)
						}
						epochs[e] = n
						return n
					}
				}
			}
		}
		t.Fatal("nobody takes the store")
		return ""
	}
	opened := func() map[string]int {
		was := map[string]int{}
		for n, p := range ps {
			p.mu.Lock()
			was[n] = p.count("open ")
			p.mu.Unlock()
		}
		return was
	}
	holder := next(map[string]int{})
	wrong, kills := 0, 0
	var times []time.Duration
	for range *races {
		want := ""
		for n, p := range ps {
			if n == holder {
				continue
			}
			if want == "" || n < want {
				want = n
			}
			p.wait(fmt.Sprintf("%s to see the others, %v", n, lastLines(ps)), func() bool {
				for _, l := range slices.Backward(p.lines) {
					if l == "left" || strings.HasPrefix(l, "sees ") {
						return l == fmt.Sprint("sees ", len(nodes)-1)
					}
				}
				return false
			})
		}
		was, start := opened(), time.Now()
		switch rng.IntN(3) {
		case 0:
			kills++
			ps[holder].kill()
			ps[holder].gone()
			was[holder] = 0
			delete(ps, holder)
			now := next(was)
			ps[holder] = startContender(t, dir, holder)
			holder = now
		case 1:
			fmt.Fprintln(ps[holder].in.(io.Writer))
			holder = next(was)
		default:
			for n := range ps {
				if n != holder {
					want = n
					break
				}
			}
			fmt.Fprintln(ps[holder].in.(io.Writer), want)
			holder = next(was)
		}
		times = append(times, time.Since(start))
		if holder != want {
			wrong++
		}
	}
	slices.Sort(times)
	t.Logf("%d turns, %d by a kill, %d epochs, none held twice; %d times out of order; to the next acknowledgement p50 %v, max %v",
		len(times), kills, len(epochs), wrong, times[len(times)/2], times[len(times)-1])
	if wrong > 1+len(times)/20 {
		t.Errorf("%d of %d turns went to another than the first in order", wrong, len(times))
	}
}

// TestStoppedCandidateIsPassedOver: the first in order is stopped, and the second takes the store all the same, at once if it has been so for long.
func TestStoppedCandidateIsPassedOver(t *testing.T) {
	dir := quickDir(t)
	s := mustOpen(t, dir, Options{Node: "owner", SegmentBytes: 64 << 10}, nil)
	first := startContender(t, dir, "a")
	first.said("sees 1")
	second := startContender(t, dir, "b")
	second.said("sees 2")
	first.cmd.Process.Signal(syscall.SIGSTOP)
	second.said("sees 1")
	for len(s.Candidates()) != 1 {
		time.Sleep(time.Millisecond)
	}
	start := time.Now()
	if err := s.Journal.Close(); err != nil {
		t.Fatal(err)
	}
	second.said("open 2")
	if took := time.Since(start); took > successorWait {
		t.Errorf("took %v", took)
	}
	first.cmd.Process.Signal(syscall.SIGCONT)
	fmt.Fprintln(second.in.(io.Writer), "a")
	first.said("open 3")
	first.cmd.Process.Signal(syscall.SIGKILL)
}
