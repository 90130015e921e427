package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxAnswer bounds what is read from a process's admin listener.
const maxAnswer = 16 << 20

// brokerState is what a broker says of itself on /status.
type brokerState struct {
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

// state asks a broker what it is.
func (c *cluster) state(ctx context.Context, m *member) (brokerState, error) {
	var status struct {
		Broker struct {
			Stores []brokerState `json:"stores"`
		} `json:"broker"`
	}
	body, err := c.get(ctx, m.admin, "/status")
	if err != nil {
		return brokerState{}, err
	}
	if err := json.Unmarshal(body, &status); err != nil {
		return brokerState{}, fmt.Errorf("read status of %s: %w", m.host, err)
	}
	if len(status.Broker.Stores) == 0 {
		return brokerState{}, fmt.Errorf("read status of %s: no store", m.host)
	}
	return status.Broker.Stores[0], nil
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
