package journal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestSuccessor: who is named goes first while it lives; then, or if it does not come, the others do, and nobody remembers it.
func TestSuccessor(t *testing.T) {
	for name, tc := range map[string]struct {
		named string
		rival func(t *testing.T, dir string) // what the one who is named does
		at    time.Duration                  // when the other one has the store
	}{
		"is not there":         {named: "ghost"},
		"is the other one":     {named: "b"},
		"lives, does not come": {named: "rival", rival: func(t *testing.T, dir string) { stand(t, dir, "rival", Standing{}) }, at: successorWait + rankDelay},
		"dies while it is time": {named: "rival", rival: func(t *testing.T, dir string) {
			time.AfterFunc(1300*time.Millisecond, stand(t, dir, "rival", Standing{}))
		}, at: 300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				a := mustOpen(t, dir, Options{Node: "a", SegmentBytes: 8 << 10}, nil)
				if tc.rival != nil {
					tc.rival(t, dir)
				}
				opened := make(chan *Journal)
				go func() {
					j, err := Open(t.Context(), dir, Options{Node: "b", SegmentBytes: 8 << 10}, nil)
					if err != nil {
						t.Error(err)
					}
					opened <- j
				}()
				time.Sleep(time.Second)
				start := time.Now()
				if err := a.HandOver(tc.named); err != nil {
					t.Fatal(err)
				}
				if k := pulseOf(t, dir); tc.at > 0 && (k.Successor != tc.named || k.PID != 0 || k.Last == 0) { // the other one has not come yet
					t.Errorf("left %+v", k)
				}
				j := <-opened
				if took := time.Since(start); took < tc.at || took > tc.at+20*time.Millisecond {
					t.Errorf("took %v, want %v", took, tc.at)
				}
				if k := pulseOf(t, dir); k.Successor != "" || k.Last != 0 || k.Node != "b" {
					t.Errorf("the next owner's pulse is %+v", k)
				}
				j.Close()
			})
		})
	}
}

// TestTwoStoresGoToTwo: two stores that are freed at one moment go to two candidates, though both would go to the same one first.
func TestTwoStoresGoToTwo(t *testing.T) {
	for range 10 {
		synctest.Test(t, func(t *testing.T) {
			dirs := []string{t.TempDir(), t.TempDir()}
			owners := make([]*store, 2)
			for i, dir := range dirs {
				owners[i] = mustOpen(t, dir, Options{Node: "owner", SegmentBytes: 8 << 10}, nil)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			var serves [2]atomic.Int32
			for server := range 2 {
				var turn sync.Mutex
				for _, dir := range dirs {
					wg.Go(func() {
						j, err := Open(ctx, dir, Options{
							Node: string(rune('a' + server)), SegmentBytes: 8 << 10, Turn: &turn,
							Standing: func() Standing { return Standing{Serves: int(serves[server].Load()), Rank: server} },
							Won:      func() { serves[server].Add(1) },
						}, nil)
						if err == nil {
							<-ctx.Done()
							err = j.Close()
						}
						if err != nil && !errors.Is(err, context.Canceled) {
							t.Error(err)
						}
					})
				}
			}
			time.Sleep(time.Second)
			owners[0].Journal.Close()
			owners[1].Journal.Close()
			time.Sleep(time.Second)
			if a, b := serves[0].Load(), serves[1].Load(); a != 1 || b != 1 {
				t.Errorf("they serve %d and %d", a, b)
			}
			cancel()
			wg.Wait()
		})
	}
}

// TestFollowByPlace: the first two keep a copy, and owners; one that falls back keeps it for some seconds.
func TestFollowByPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a := mustOpen(t, dir, Options{Node: "a", SegmentBytes: 8 << 10}, nil)
		p, err := a.Append(Entry{Type: 1, Payload: []byte("x"), Account: Account{Live: 1}})
		if err != nil {
			t.Fatal(err)
		}
		a.durable(p.LSN)
		ctx, cancel := context.WithCancel(t.Context())
		var copy atomic.Pointer[Copy]
		var own atomic.Bool
		resets, ended := 0, make(chan error)
		go func() {
			_, err := Open(ctx, dir, Options{
				Node: "x", SegmentBytes: 8 << 10, Follow: true, Reset: func() { resets++ }, Copied: func(c Copy) { copy.Store(&c) },
				Standing: func() Standing { return Standing{Rank: 1, Own: own.Load()} },
			}, func(Record) (Account, error) { return Account{Live: 1}, nil })
			ended <- err
		}()
		warm := func() bool {
			time.Sleep(2 * showEvery)
			c := copy.Load()
			for _, k := range a.Candidates() {
				if k.Node == "x" && k.Warm != (c.Applied > 0) {
					t.Errorf("it says warm: %v, copy %+v", k.Warm, c)
				}
			}
			return c.Applied > 0
		}
		check := func(what string, want bool) {
			t.Helper()
			time.Sleep(300 * time.Millisecond)
			if warm() != want {
				t.Errorf("%s: warm is %v: %+v", what, !want, *copy.Load())
			}
		}
		check("alone", true)
		leave := stand(t, dir, "1", Standing{})
		check("second", true)
		leave2 := stand(t, dir, "2", Standing{})
		check("third for a moment", true)
		time.Sleep(restAfter)
		check("third", false)
		leave()
		check("second again", true)
		leave = stand(t, dir, "1", Standing{})
		check("third for a moment again", true)
		leave()
		time.Sleep(restAfter)
		check("second", true)
		leave = stand(t, dir, "1", Standing{})
		time.Sleep(2 * restAfter)
		check("third for long", false)
		own.Store(true)
		check("owner", true)
		leave()
		leave2()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if resets != 2 {
			t.Errorf("%d copies were given up, want 2", resets)
		}
	})
}

// TestCandidateLosesItsDirectory: whoever cannot write there any more stands no longer, and says so.
func TestCandidateLosesItsDirectory(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"it is gone":      func(dir string) error { return os.Rename(dir, dir+"-away") },
		"it is read-only": func(dir string) error { return os.Chmod(dir, 0o500) },
		"its candidates cannot be written": func(dir string) error {
			path := filepath.Join(dir, candidatesName)
			return errors.Join(os.RemoveAll(path), os.WriteFile(path, nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "it is read-only" && os.Geteuid() == 0 {
				t.Skip("root may write anywhere")
			}
			dir := filepath.Join(t.TempDir(), "store")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.Chmod(dir, 0o700) })
			f, err := os.Create(filepath.Join(dir, lockName))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if got, err := tryLock(f); err != nil || !got {
				t.Fatal(err)
			}
			ended, standing := make(chan error), make(chan struct{})
			go func() {
				_, err := Open(t.Context(), dir, Options{Candidates: func([]Candidate) { close(standing) }}, nil)
				ended <- err
			}()
			<-standing
			if err := spoil(dir); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				if err == nil || !strings.Contains(err.Error(), "stand for the store") {
					t.Error(err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("it goes on")
			}
		})
	}
}

// TestNamesakes: two servers of one name are a mistake that costs an order, and no more.
func TestNamesakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		leave := stand(t, dir, "n", Standing{})
		start := time.Now()
		s := mustOpen(t, dir, Options{Node: "n", SegmentBytes: 8 << 10}, nil)
		if took := time.Since(start); took < rankDelay || took > 2*rankDelay {
			t.Errorf("took %v", took)
		}
		time.Sleep(time.Second)
		if list := s.Candidates(); len(list) != 1 {
			t.Errorf("%+v", list)
		}
		leave()
		s.Close()
	})
}

// Long and odd names make files of their own.
func TestFileFor(t *testing.T) {
	seen := map[string]string{}
	for _, node := range []string{"a", "A", "", ".", "..", "a/b", "a%2Fb", "10.0.0.1:61613", strings.Repeat("/", maxNode), strings.Repeat("/", maxNode-1) + "x"} {
		f := fileFor(node)
		if other, twice := seen[f]; twice || len(f) > 255 || strings.ContainsAny(f, "/\x00") || strings.HasPrefix(f, ".") {
			t.Errorf("%q and %q: %q", node, other, f)
		}
		seen[f] = node
	}
}

// A file that nobody holds is no candidate, and goes after a while; what belongs to candidates and to the caller is no litter of the log.
func TestDeadCandidatesGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := mustOpen(t, dir, Options{SegmentBytes: 8 << 10}, nil)
		dead := filepath.Join(dir, candidatesName, "dead")
		if err := errors.Join(os.WriteFile(dead, []byte(`{"node":"dead","id":"1","beat":7}`), 0o600), os.WriteFile(filepath.Join(dir, NameFile), []byte("orders\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(forgetAfter / 2)
		if _, err := os.Stat(dead); err != nil || len(s.Candidates()) != 0 {
			t.Errorf("%v; candidates %+v", err, s.Candidates())
		}
		time.Sleep(forgetAfter)
		if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
			t.Error("it is still there")
		}
		s.Close()
		r, err := Check(dir, CheckOptions{})
		if err != nil || r.Verdict != Whole || len(r.Litter) != 0 {
			t.Errorf("%v, %+v", err, r)
		}
	})
}
