package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxAnswer bounds what is read from a process's admin listener.
const maxAnswer = 16 << 20

// brokerState is what a broker says on /status of its share in a store.
type brokerState struct {
	Name  string    `json:"name"`
	Role  string    `json:"role"`
	Since time.Time `json:"since"`
	Epoch uint64    `json:"epoch"`
	Count int       `json:"messages"` // in its queues
	// Copy is a standby's copy of the store, by records; nil where it has none.
	Copy *struct {
		Applied uint64 `json:"applied"`
		Proved  uint64 `json:"proved"` // by the owner, so far
		Cold    string `json:"cold"`   // why there is none
	} `json:"copy"`
}

// awaitActive waits for m to own the store.
func (c *cluster) awaitActive(ctx context.Context, m *member) (epoch uint64, since time.Time, err error) {
	err = await(ctx, c.cfg.TakeoverTimeout, m.host+" to become active", func() (bool, error) {
		state, err := c.state(ctx, m)
		epoch, since = state.Epoch, state.Since
		return err == nil && state.Role == "active", m.process.ended()
	})
	return epoch, since, err
}

// state asks a broker what it is to its only store.
func (c *cluster) state(ctx context.Context, m *member) (brokerState, error) {
	all, err := c.states(ctx, m)
	switch {
	case err != nil:
		return brokerState{}, err
	case len(all) == 0:
		return brokerState{}, fmt.Errorf("read status of %s: no store", m.host)
	}
	return all[0], nil
}

// states asks a broker what it is to each of its stores.
func (c *cluster) states(ctx context.Context, m *member) ([]brokerState, error) {
	var status struct {
		Broker struct {
			Stores []brokerState `json:"stores"`
		} `json:"broker"`
	}
	body, err := c.get(ctx, m.admin, "/status")
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(body, &status); err != nil {
		return nil, fmt.Errorf("read status of %s: %w", m.host, err)
	}
	return status.Broker.Stores, nil
}

// tenure is one server's service of a store.
type tenure struct {
	store  string
	holder *member
	epoch  uint64
	since  time.Time
}

// tenures asks a broker which stores it serves.
func (c *cluster) tenures(ctx context.Context, m *member) ([]tenure, error) {
	states, err := c.states(ctx, m)
	var all []tenure
	for _, s := range states {
		if s.Role == "active" {
			all = append(all, tenure{s.Name, m, s.Epoch, s.Since})
		}
	}
	return all, err
}

// awaitTenures waits until each store is served in an epoch above the one given for it by somebody among the members, and returns by whom.
// They are asked in turn, for all that they say has its time with it.
func (c *cluster) awaitTenures(ctx context.Context, above map[string]uint64, among []*member) (map[string]tenure, error) {
	found, turn := map[string]tenure{}, 0
	what := fmt.Sprintf("somebody to serve %s", strings.Join(slices.Sorted(maps.Keys(above)), ", "))
	err := await(ctx, c.cfg.TakeoverTimeout+c.cfg.FailbackAfter, what, func() (bool, error) {
		m := among[turn%len(among)]
		turn++
		all, err := c.tenures(ctx, m)
		if err != nil {
			return false, m.process.ended()
		}
		for _, t := range all {
			if epoch, wanted := above[t.store]; wanted && t.epoch > max(epoch, found[t.store].epoch) {
				found[t.store] = t
			}
		}
		return len(found) == len(above), nil
	})
	return found, err
}

// counters reads metrics of the sidecar: for each name, the sum over its labels.
func (c *cluster) counters(ctx context.Context, names ...string) (map[string]uint64, error) {
	body, err := c.get(ctx, c.sidecar.admin, "/metrics")
	if err != nil {
		return nil, fmt.Errorf("read metrics of the sidecar: %w", err)
	}
	found := map[string]bool{}
	sums := map[string]uint64{}
	lines := bufio.NewScanner(strings.NewReader(string(body)))
	for lines.Scan() {
		series, value, ok := strings.Cut(lines.Text(), " ")
		name, _, _ := strings.Cut(series, "{")
		if n, err := strconv.ParseFloat(value, 64); ok && err == nil {
			sums[name] += uint64(n)
			found[name] = true
		}
	}
	for _, name := range names {
		if !found[name] {
			return nil, fmt.Errorf("read metrics of the sidecar: it has no %s", name)
		}
	}
	return sums, nil
}

func (c *cluster) get(ctx context.Context, addr, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", path, res.Status)
	}
	return body, err
}
