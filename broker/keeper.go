package broker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// keeper is one server's share in one store: it stands by, takes over, serves, hands over, and stands by again. Whatever goes wrong with the store ends a
// tenure of its keeper, and nothing else.
type keeper struct {
	srv   *Server
	given StoreConfig
	log   *slog.Logger
	count *counters
	// orders are taken by who serves the store: so there is nobody to take one else.
	orders chan order
	looked chan struct{} // closed once the directory has been looked at
	once   sync.Once     // closes looked
	done   chan struct{} // closed when run has returned

	view atomic.Pointer[view] // for the lobby, which waits for no store

	tested bool // the store's disk, by a tenure before; of the goroutine that runs the keeper

	mu     sync.Mutex
	status StoreStatus
	tenure *tenure     // that serves; nil
	fatal  error       // the store cannot be served as it is: damage, or what was final
	seen   string      // UUID in the directory when it was looked at last; status has it only while no other keeper has that store
	place  fs.FileInfo // the directory then; nil

	leaving sync.WaitGroup // tenures whose connections still hear their last word
}

// view is what a CONNECT needs to know of a keeper.
type view struct {
	name, uuid string
	own        bool
	role       Role
	epoch      uint64
	holder     string  // who serves it, as far as is known
	tenure     *tenure // that serves; nil
}

// ending is how a tenure ended that nobody ended.
type ending struct {
	role  Role // until the next one
	final bool // there is none, in this process
	err   error
}

// Pauses between two tenures, after trouble.
const (
	againFirst = time.Second
	againMost  = 30 * time.Second
	calm       = 10 * time.Second // a tenure of that length was no trouble
)

// newKeeper does not touch the directory: a file system that hangs is to hold up this keeper's goroutine, and nobody else.
func newKeeper(s *Server, given StoreConfig) *keeper {
	k := &keeper{
		srv: s, given: given, log: s.cfg.Logger.With("store", given.Name), orders: make(chan order), looked: make(chan struct{}), done: make(chan struct{}),
	}
	k.count = newCounters(s.cfg.Metrics, given.Name)
	k.status = StoreStatus{StoreConfig: given, Role: Standby, Since: time.Now()}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.publishLocked()
	return k
}

// run keeps the store until ctx ends. It returns what went wrong with letting go of it.
func (k *keeper) run(ctx context.Context) error {
	defer k.leaving.Wait()
	pause := time.Duration(0)
	for {
		began := time.Now()
		end := k.stand(ctx)
		if ctx.Err() != nil {
			return k.stop(end)
		}
		if end == nil {
			pause = 0
			k.become(Standby, nil)
			continue
		}
		if time.Since(began) > calm {
			pause = 0
		}
		if k.again(ctx, end, pause); ctx.Err() != nil {
			_ = k.stop(end) // that was said, and is not how the server ended
			return nil
		}
		pause = min(max(2*pause, againFirst), againMost)
	}
}

// again says what went wrong, and waits until it is time for another try. What went well for long before is tried again at once if only the store
// has another owner.
func (k *keeper) again(ctx context.Context, end *ending, pause time.Duration) {
	fenced := errors.Is(end.err, journal.ErrFenced)
	if !fenced {
		pause = max(pause, againFirst)
	}
	k.mu.Lock()
	said := k.status.Role == end.role && k.status.Trouble != nil && k.status.Trouble.Error() == end.err.Error()
	k.mu.Unlock()
	fatal := end.final || errors.Is(end.err, journal.ErrDamaged)
	change := func(s *StoreStatus) {
		s.Trouble, s.Again = end.err, time.Now().Add(pause)
		if k.fatal = nil; fatal {
			k.fatal = end.err
		}
		if end.final {
			s.Err, s.Again = end.err, time.Time{}
		}
	}
	switch {
	case said:
		k.mu.Lock()
		change(&k.status)
		k.mu.Unlock()
	case end.final:
		k.log.Error("the store has failed, and is not served by this process any more", "error", end.err)
	case fenced:
		k.log.Warn("the store has another owner: standing by for it", "error", end.err)
	case end.role == Unreachable:
		k.log.Warn("the store cannot be reached: this server does not stand for it until it can", "error", end.err)
	default:
		k.log.Error("the store could not be kept: this server does not stand for it for a while", "error", end.err, "pause", pause)
	}
	if !said {
		k.become(end.role, change)
	}
	if fatal {
		k.srv.judge()
	}
	if end.final {
		<-ctx.Done()
		return
	}
	_ = sleep(ctx, pause)
}

// stop is the end of a keeper.
func (k *keeper) stop(end *ending) error {
	var err error
	if end != nil {
		err = end.err
	}
	k.become(Stopped, func(s *StoreStatus) {
		if k.fatal != nil {
			err = k.fatal
		}
		s.Err, s.Again = err, time.Time{}
	})
	return err
}

// become changes the role and says so.
func (k *keeper) become(role Role, change func(*StoreStatus)) {
	k.set(role, change)
	k.srv.changed()
}

func (k *keeper) set(role Role, change func(*StoreStatus)) {
	k.mu.Lock()
	k.status.Role, k.status.Since = role, time.Now()
	if change != nil {
		change(&k.status)
	}
	k.publishLocked()
	k.mu.Unlock()
	k.log.Info("role", "role", string(role), "node", k.srv.cfg.Name)
}

func (k *keeper) publishLocked() {
	s := &k.status
	k.view.Store(&view{name: s.Name, uuid: s.UUID, own: k.given.Own, role: s.Role, epoch: s.Epoch, holder: s.Owner.Node, tenure: k.tenure})
}

// Files of a store's directory that are not the journal's business, or that it makes.
const (
	nameFile  = "NAME"  // what the owner calls the store
	storeFile = "STORE" // its UUID
)

// look reads what the store is called, and makes it this keeper's unless another one has it.
func (k *keeper) look() error {
	uuid, name, err := k.read()
	if err != nil {
		return err
	}
	return k.srv.claim(k, uuid, name)
}

// read is the part of look that may take as long as the file system likes. Who does not own the store has no business with a directory that is no store,
// and its owner has none with one that was the store a while ago: a file system that is not mounted must not become another store.
func (k *keeper) read() (uuid, name string, err error) {
	defer k.once.Do(func() { close(k.looked) })
	dir := k.given.Dir
	slow := time.AfterFunc(lookPatience, func() { k.log.Warn("the store's directory does not answer: waiting for its file system", "dir", dir) })
	defer slow.Stop()
	k.mu.Lock()
	known := k.seen != ""
	k.mu.Unlock()
	uuid, err = readWord(filepath.Join(dir, storeFile))
	switch {
	case err == nil, k.given.Own && !known && errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, fs.ErrNotExist):
		return "", "", fmt.Errorf("%s is no store, or its file system is not there: %w", dir, err)
	default:
		return "", "", err
	}
	name = k.given.Name
	if !k.given.Own {
		if named, err := readWord(filepath.Join(dir, nameFile)); err == nil {
			name = named
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", "", err
		}
	}
	place, _ := os.Stat(dir) // nil is a place like no other
	k.mu.Lock()
	k.seen, k.place = uuid, place
	k.mu.Unlock()
	return uuid, name, nil
}

// readWord reads a file that holds a name.
func readWord(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, 2*frame.MaxStoreName)
	n, err := f.Read(b)
	if n == 0 {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	word := strings.TrimSpace(string(b[:n]))
	if !frame.ValidStoreName(word) {
		return "", fmt.Errorf("read %s: %q is no name of a store", path, word)
	}
	return word, nil
}

// christen writes down what the owner calls the store, where that has changed.
func (k *keeper) christen() error {
	path := filepath.Join(k.given.Dir, nameFile)
	if old, err := readWord(path); err == nil && old == k.given.Name {
		return nil
	}
	f, err := os.CreateTemp(k.given.Dir, nameFile+".*")
	if err != nil {
		return err
	}
	_, err = f.WriteString(k.given.Name + "\n")
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// lastWord says whether nobody in this process may try again after err: what the disk has not taken the kernel may have forgotten, and the next sync would
// not tell.
func lastWord(err error) bool {
	return errors.Is(err, journal.ErrSync) || errors.Is(err, syscall.EIO)
}
