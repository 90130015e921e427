package journal

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// NameFile is a file in the store's directory that belongs to the caller: the journal neither reads nor writes it.
const NameFile = "NAME"

const (
	candidatesName = "candidates"
	showEvery      = 100 * time.Millisecond // between two beats of a candidate
	cardLimit      = 8 << 10                // octets of a candidate's file
	maxWhere       = 512                    // octets of Standing.Endpoint and Admin
	maxCandidates  = 1000                   // more of them are not read
	forgetAfter    = 10 * time.Second       // a file that nobody holds for so long is removed
)

// Standing is what a candidate says of itself to the others. It decides who goes first; that a store has one owner does not rest on it.
type Standing struct {
	Own      bool   `json:"own,omitempty"`      // it is an owner of the store
	Serves   int    `json:"serves,omitempty"`   // stores that its process serves, or is taking over now
	Load     int    `json:"load,omitempty"`     // of its process, in any unit that all candidates share; powers of two are told apart
	Rank     int    `json:"rank,omitempty"`     // an operator's word: lower goes first among those who serve as many stores
	Endpoint string `json:"endpoint,omitempty"` // where clients reach it; left out beyond 512 octets
	Admin    string `json:"admin,omitempty"`    // where operators reach it; as Endpoint
}

// Candidate is one that stands for a store, as others see it.
type Candidate struct {
	Node string
	Standing
	Warm  bool      // it has visited all that was proved a moment ago
	Beat  uint64    // rises while it lives
	Since time.Time // it has shown life without a break, by our clock
}

// card is what a candidate's file holds, as JSON.
type card struct {
	Node string `json:"node"`
	ID   string `json:"id"` // of one candidacy
	Standing
	Warm bool   `json:"warm,omitempty"`
	Beat uint64 `json:"beat"`
}

func (s Standing) bounded() Standing {
	if len(s.Endpoint) > maxWhere {
		s.Endpoint = ""
	}
	if len(s.Admin) > maxWhere {
		s.Admin = ""
	}
	return s
}

// presence is our own file among the candidates': locked while we stand, so that a death shows at once, and written again and again, so that a stop
// does. It is for the order alone, and so it is never synced, and a candidate that cannot have one goes last but goes.
type presence struct {
	disk *disk
	log  *slog.Logger
	card card
	born time.Time
	file *os.File // nil: there is none
	size int      // octets of the longest card
	next time.Time
	why  string // why there is none, as it was said
}

// errTaken is why a second candidate of the same name has no file.
var errTaken = errors.New("another candidate has this name; give each server its own")

func newPresence(d *disk, node string, log *slog.Logger) *presence {
	return &presence{disk: d, log: log, card: card{Node: node, ID: rand.Text()}, born: time.Now()}
}

// fileFor is the name of a node's file. A long name is cut: what matters is that two differ.
func fileFor(node string) string {
	s := strings.ReplaceAll(url.PathEscape(node), ".", "%2E")
	if len(s) > 200 {
		s = s[:160] + fmt.Sprintf("-%016x", nodeHash("", node))
	}
	return s
}

func (p *presence) path() string {
	return p.disk.at(filepath.Join(candidatesName, fileFor(p.card.Node)))
}

// show tells the others how we stand: at once where that has changed, else when it is time for a beat. An error means that we have no business here.
func (p *presence) show(now time.Time, s Standing, warm bool) error {
	s = s.bounded()
	if now.Before(p.next) && s == p.card.Standing {
		return nil
	}
	p.next = now.Add(showEvery)
	p.card.Standing, p.card.Warm = s, warm
	p.card.Beat++
	err := p.hold()
	if err == nil {
		err = p.write()
	}
	switch {
	case err == nil:
		p.why = ""
	case errors.Is(err, errTaken), isFull(err):
		if p.why != err.Error() {
			p.why = err.Error()
			p.log.Warn("the other candidates do not see this one: it goes last", "node", p.card.Node, "err", err)
		}
		p.close()
	default:
		return fmt.Errorf("stand for the store: %w", err)
	}
	return nil
}

// hold makes sure that the file is there, and ours. Others remove it when nobody holds it: so whoever locked it looks whether it still has its name.
func (p *presence) hold() error {
	if p.file != nil && sameFile(p.file, p.path()) {
		return nil
	}
	p.close()
	if err := os.Mkdir(p.disk.at(candidatesName), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for range 3 {
		f, err := os.OpenFile(p.path(), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		got, err := tryLock(f)
		if err == nil && got && sameFile(f, p.path()) {
			if err := f.Truncate(0); err != nil { // a process of that name that was killed may have left a longer card
				f.Close()
				return err
			}
			p.file, p.size = f, 0
			return nil
		}
		f.Close()
		if err != nil || !got {
			return cmp.Or(err, errTaken)
		}
	}
	return errTaken
}

func (p *presence) write() error {
	b, err := json.Marshal(p.card)
	if err != nil {
		return err
	}
	if len(b) >= cardLimit {
		return fmt.Errorf("node name %q is too long", p.card.Node)
	}
	b = append(b, bytes.Repeat([]byte{' '}, max(0, p.size-len(b)))...) // over what a longer one left
	p.size = len(b)
	_, err = p.file.WriteAt(b, 0)
	return err
}

func (p *presence) candidate() Candidate {
	return Candidate{Node: p.card.Node, Standing: p.card.Standing, Warm: p.card.Warm, Beat: p.card.Beat, Since: p.born}
}

// end takes the file away.
func (p *presence) end() {
	if p.file != nil && sameFile(p.file, p.path()) {
		_ = os.Remove(p.path()) // whoever finds it there later does that
	}
	p.close()
}

func (p *presence) close() {
	if p.file != nil {
		p.file.Close()
	}
	p.file = nil
}

// sameFile says whether f is what has that name now.
func sameFile(f *os.File, path string) bool {
	now, err := os.Stat(path)
	mine, err2 := f.Stat()
	return err == nil && err2 == nil && os.SameFile(now, mine)
}

// lister reads the files of the candidates.
type lister struct {
	disk *disk
	self string // file name not to be read; "": none
	dead map[string]time.Time
	buf  []byte
}

// list reads the files that somebody holds. It removes those that have been nobody's for long.
func (l *lister) list(now time.Time) ([]sighting, error) {
	dir, err := os.Open(l.disk.at(candidatesName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names, _ := dir.Readdirnames(maxCandidates)
	dir.Close()
	if len(names) == 0 { // io.EOF, or an error: then nobody is seen
		return nil, nil
	}
	dead := map[string]time.Time{}
	var seen []sighting
	for _, name := range names {
		if name == l.self {
			continue
		}
		s, held, err := l.read(name)
		switch {
		case err != nil: // it went away meanwhile, or is none
		case held:
			seen = append(seen, s)
		default:
			since, ok := l.dead[name]
			if !ok {
				since = now
			}
			dead[name] = since
			if now.Sub(since) > forgetAfter {
				l.remove(name)
			}
		}
	}
	l.dead = dead
	return seen, nil
}

func (l *lister) read(name string) (s sighting, held bool, err error) {
	f, err := os.Open(l.disk.at(filepath.Join(candidatesName, name)))
	if err != nil {
		return s, false, err
	}
	defer f.Close()
	free, err := lockIsFree(f)
	if err != nil || free {
		return s, false, err
	}
	s.file = name
	if l.buf == nil {
		l.buf = make([]byte, cardLimit)
	}
	n, _ := f.ReadAt(l.buf, 0)
	s.ok = json.Unmarshal(bytes.TrimRight(l.buf[:n], " \n\x00"), &s.card) == nil && s.Node != "" && len(s.Node) <= maxNode
	s.Standing = s.Standing.bounded()
	return s, true, nil
}

// remove takes away the file of a candidate that died. The lock keeps a new candidate from taking it at the same time: it would find out that
// its file has no name any more, and make another.
func (l *lister) remove(name string) {
	path := l.disk.at(filepath.Join(candidatesName, name))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if got, err := tryLock(f); err == nil && got && sameFile(f, path) {
		_ = os.Remove(path)
	}
}
