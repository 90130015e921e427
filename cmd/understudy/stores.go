package main

import (
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/understudy-mq/understudy/broker"
	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/cmd/internal/ops"
	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// storeFlags say which stores a broker has, and who takes over what when.
func storeFlags() []cli.Flag {
	return []cli.Flag{
		texts("store", "NAME=DIR, or DIR named by its last element: a store that this server owns; DIR holds its journal, is shared by all its brokers, and is made if it is not there, but not what it lies in; repeatable."),
		texts("stand-for", "NAME=DIR, or DIR: a store of another server that this one takes over when nobody serves it; repeatable, waited for while it is not there."),
		text("stand-for-all", "", "Directory whose sub-directories are stores: this server stands for each, those that appear later included."),
		yes("standby", false, "This server owns no store and only stands for others; must be said when there is no --store."),
		text("failback", "auto", "When a store that another server has taken over returns to its owner: auto is once the owner is back, manual is by `understudy broker handover`."),
		duration("failback-after", 30*time.Second, "How long an owner must have been back, without a break, before its store returns to it by itself."),
		text("takeover", "strict", "What a standby does about an owner that shows no life: strict waits for its lock, kill ends its process (same host only), lease takes the store in spite of its lock (any host)."),
		duration("takeover-after", 0, "How long an owner must have shown no life before --takeover kill or lease acts; 0 means 1s for kill and 10s for lease, which needs twice the time after which sidecars leave a silent broker."),
		number("rank", 0, "Of servers with equally many stores, those with a higher rank let those with a lower one go first."),
	}
}

// Kinds of takeover and the time that each takes when nothing is said.
var takeovers = map[string]struct {
	how   journal.Takeover
	after time.Duration
}{
	"strict": {journal.Strict, time.Second},
	"kill":   {journal.Kill, time.Second},
	"lease":  {journal.Lease, 10 * time.Second},
}

// takeover reads what may be done about an owner that shows no life.
func (v *values) takeover() (journal.Takeover, time.Duration) {
	how, known := takeovers[v.text("takeover")]
	if !known {
		v.fail("takeover", v.text("takeover"), "must be strict, kill or lease")
	}
	after := v.notNegative("takeover-after")
	if after == 0 {
		after = how.after
	}
	return how.how, after
}

// failback reads when a store returns to its owner.
func (v *values) failback() (broker.Failback, time.Duration) {
	after := v.positive("failback-after")
	switch how := v.text("failback"); how {
	case "auto":
	case "manual":
		return broker.FailbackManual, after
	default:
		v.fail("failback", how, "must be auto or manual")
	}
	return broker.FailbackAuto, after
}

// stores are those that the server owns, and then those that it stands for by name; all is the directory that is full of them.
func (v *values) stores() (stores []broker.StoreConfig, all string) {
	for _, text := range v.c.StringSlice("store") {
		stores = v.addStore(stores, "store", text)
	}
	own := len(stores)
	for _, text := range v.c.StringSlice("stand-for") {
		stores = v.addStore(stores, "stand-for", text)
	}
	all = v.text("stand-for-all")
	switch standby := v.c.Bool("standby"); {
	case standby && own > 0:
		v.fail("standby", "", "means a server without a store of its own, and there is a --store: leave one of them out")
	case standby && len(stores) == 0 && all == "":
		v.fail("standby", "", "has nothing to stand for: give --stand-for NAME=DIR or --stand-for-all DIR")
	case !standby && own == 0:
		v.fail("store", "", "must name the directory of a store, or --standby must say that this server owns none")
	}
	return stores, all
}

// addStore reads a value of --store or --stand-for.
func (v *values) addStore(stores []broker.StoreConfig, flag, text string) []broker.StoreConfig {
	name, dir, named := strings.Cut(text, "=")
	if !named {
		dir = text
		if path, err := filepath.Abs(text); err == nil {
			name = filepath.Base(path)
		}
	}
	if dir == "" || !usableName(name) {
		v.fail(flag, text, "must be NAME=DIR; a name has at most 64 letters, digits, dots, dashes and underscores, and is neither spread nor a UUID")
		return stores
	}
	for _, other := range stores {
		switch {
		case other.Name == name:
			v.fail(flag, text, "is the second store of that name: give each its own, as NAME=DIR")
		case sameDir(other.Dir, dir):
			v.fail(flag, text, "is the directory of store "+other.Name+" already: a server is named once for each store")
		}
	}
	return append(stores, broker.StoreConfig{Name: name, Dir: dir, Own: flag == "store"})
}

var storeUUID = regexp.MustCompile(`(?i)^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// usableName reports whether a sidecar could ask for a store by that name: spread and a UUID mean something else to it.
func usableName(name string) bool {
	return frame.ValidStoreName(name) && name != "spread" && strings.Trim(name, ".") != "" && !storeUUID.MatchString(name)
}

// sameDir compares what directories are there for; of two that are not there yet, their names.
func sameDir(a, b string) bool { return realDir(a) == realDir(b) }

func realDir(dir string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	if path, err := filepath.Abs(dir); err == nil {
		dir = path
	}
	return dir
}

// checkOwn makes the directories of the stores that the server owns. Each store fails alone, so one that cannot be used is an error only where there is
// nothing else to do; it is told about all the same, and tried again.
func (s *brokerSettings) checkOwn() (unusable []error, err error) {
	for _, store := range s.broker.Stores {
		if !store.Own {
			continue
		}
		if err := ops.CheckDir("store", store.Dir); err != nil {
			unusable = append(unusable, err)
		}
	}
	if len(unusable) > 0 && len(unusable) == len(s.broker.Stores) && s.broker.StandForAll == "" {
		return nil, unusable[0]
	}
	return unusable, nil
}
