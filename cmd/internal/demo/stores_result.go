package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// StoresResult is the outcome of a run with several stores. Its JSON form is what scripts read.
type StoresResult struct {
	Verdict  string        `json:"verdict"` // clean, failed
	Stores   []StoreResult `json:"stores"`
	Servers  int           `json:"servers"`
	Standbys int           `json:"standbys"` // of them
	Kills    int           `json:"kills"`    // by SIGKILL
	Stops    int           `json:"stops"`    // by SIGTERM
	Order    struct {
		Checked    int      `json:"checked"` // stores that were freed, and taken by somebody
		Violations []string `json:"violations"`
	} `json:"order"`
	InFlight struct {
		Sends        int `json:"sends"`
		Transactions int `json:"transactions"`
		Unacked      int `json:"unacked"`
	} `json:"in_flight"` // sums over all kills; transactions over hand-overs by command, too
	RedeliveriesHidden uint64      `json:"redeliveries_hidden"`
	Resends            uint64      `json:"resends"`
	RatePerSecond      float64     `json:"rate_per_second"` // messages sent per second of the sending phase, to all stores
	Bars               []barResult `json:"bars"`
	DurationMS         int64       `json:"duration_ms"`
	Problems           []string    `json:"problems,omitempty"`
	Config             struct {
		Handovers       int    `json:"handovers"`
		Producers       int    `json:"producers"` // of each store
		Consumers       int    `json:"consumers"` // of each store
		Rate            int    `json:"rate"`
		Payload         int    `json:"payload"`
		Ack             string `json:"ack"`
		FailbackAfterMS int64  `json:"failback_after_ms"`
		Seed            uint64 `json:"seed"`
	} `json:"config"`
}

// StoreResult is what became of one store.
type StoreResult struct {
	Name         string `json:"name"`
	Owner        string `json:"owner"`
	Holder       string `json:"holder"` // at the end
	Home         bool   `json:"home"`   // that is its owner
	Epoch        uint64 `json:"epoch"`
	Takeovers    int    `json:"takeovers"`
	Handovers    int    `json:"handovers"`
	Sent         int    `json:"sent"`
	Confirmed    int    `json:"confirmed"`
	Received     int    `json:"received"`
	Lost         int    `json:"lost"`       // confirmed and never received
	Duplicated   int    `json:"duplicated"` // deliveries beyond the first
	Reordered    int    `json:"reordered"`  // by producer and consumer
	Phantom      int    `json:"phantom"`    // never sent, altered, or sent to another store
	ClientErrors int    `json:"client_errors"`
	Silence      spans  `json:"silence_ms"` // of clients over take-overs: from the kill to the first thing heard of the new epoch
	Pause        spans  `json:"pause_ms"`   // of clients over hand-overs: the longest time between two things heard
}

// Clean reports whether the run went as promised: nothing lost, doubled, reordered or made up, no client broken, no store away from its owner, nobody served out of
// turn, nothing left undone.
func (r *StoresResult) Clean() bool {
	return len(r.Problems) == 0 && len(r.Order.Violations) == 0 && len(r.Stores) > 0 && !slices.ContainsFunc(r.Stores, func(s StoreResult) bool {
		return s.Lost+s.Duplicated+s.Reordered+s.Phantom+s.ClientErrors > 0 || !s.Home
	})
}

// conclude judges, prints, and cleans up.
func (s *story) conclude(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil:
		s.problem("interrupted")
	case err != nil && !errors.Is(err, errClients):
		s.problem("%v", err)
	}
	var silences, pauses []time.Duration
	for _, st := range s.stages {
		s.result.Stores = append(s.result.Stores, st.conclude())
		silences, pauses = append(silences, st.silences...), append(pauses, st.pauses...)
	}
	res := &s.result
	res.Servers, res.Standbys, res.DurationMS = len(s.cluster.members), s.cfg.Standbys, time.Since(s.timeline.start).Milliseconds()
	if res.Order.Violations == nil {
		res.Order.Violations = []string{}
	}
	res.judge(s.cfg, spansOf(silences), spansOf(pauses))
	res.text(s.cfg.Out)
	names := []string{"sidecar"}
	for _, m := range s.cluster.members {
		names = append(names, m.host)
	}
	s.cluster.cleanUp(!res.Clean() && ctx.Err() == nil, names)
	if s.cfg.JSON {
		_ = writeJSON(s.cfg.Out, res)
	}
}

// conclude is what became of the store, as its clients know it.
func (st *stage) conclude() StoreResult {
	for _, c := range st.clients() {
		if b := c.isBroken(); b != nil {
			st.result.ClientErrors++
			st.problem(fmt.Sprintf("%s lost its connection: %v", b.client, b.err))
		}
	}
	for _, odd := range st.ledger.oddities() {
		st.problem(odd)
	}
	r, sum := st.result, st.ledger.totals()
	if unsettled := sum.sent - sum.confirmed; st.cfg.Receipts && unsettled > 0 {
		st.problem(fmt.Sprintf("%d messages were sent and never confirmed: their producers cannot know what became of them", unsettled))
	}
	_, r.Lost, _ = st.ledger.missing(0)
	r.Name, r.Owner, r.Epoch = st.name, st.owner.host, st.epoch
	if st.holder != nil {
		r.Holder, r.Home = st.holder.host, st.holder == st.owner
	}
	r.Sent, r.Confirmed, r.Received = sum.sent, sum.confirmed, sum.received
	r.Duplicated, r.Reordered, r.Phantom = sum.duplicated, sum.reordered, sum.phantom
	r.Silence, r.Pause = spansOf(st.silences), spansOf(st.pauses)
	return r
}

// judge fills in what follows from the figures.
func (r *StoresResult) judge(cfg Config, silence, pause spans) {
	c := &r.Config
	c.Handovers, c.Producers, c.Consumers, c.Rate, c.Payload = cfg.Handovers, cfg.Producers, cfg.Consumers, cfg.Rate, cfg.Payload
	c.Ack, c.FailbackAfterMS, c.Seed = cfg.Ack, cfg.FailbackAfter.Milliseconds(), cfg.Seed
	if r.Kills > 0 {
		r.Bars = append(r.Bars, atMost("silence p50 at a take-over", " ms", silence.P50, barSilence), atMost("silence max at a take-over", " ms", silence.Max, barLongest))
	}
	r.Bars = append(r.Bars, atMost("pause p50 at a hand-over", " ms", pause.P50, barPause), atMost("pause max at a hand-over", " ms", pause.Max, barLongestPause))
	if r.Kills == 0 {
		least := barRate * float64(cfg.Rate)
		r.Bars = append(r.Bars, barResult{fmt.Sprintf("load at least %g messages/s", least), r.RatePerSecond, r.RatePerSecond >= least})
	}
	if r.Verdict = "failed"; r.Clean() {
		r.Verdict = "clean"
	}
}

// text writes the verdict for people.
func (r *StoresResult) text(w io.Writer) {
	var b strings.Builder
	fmt.Fprintf(&b, "\n  servers      %d, of which %d own a store each and %d none; %d killed, %d stopped in good order\n", r.Servers, r.Servers-r.Standbys, r.Standbys, r.Kills, r.Stops)
	fmt.Fprintf(&b, "  clients      %d producers and %d consumers of each store (go-stomp, no fail-over logic), every second one with transactions; %.0f messages/s in all\n",
		r.Config.Producers, r.Config.Consumers, r.RatePerSecond)
	fmt.Fprintf(&b, "  in the air   %d sends unconfirmed, %d transactions open, %d messages unacknowledged, in all\n", r.InFlight.Sends, r.InFlight.Transactions, r.InFlight.Unacked)
	fmt.Fprintf(&b, "  order        of %d stores that were freed, %d were taken out of turn\n", r.Order.Checked, len(r.Order.Violations))
	fmt.Fprintf(&b, "  hidden work  %d sends played again, %d redeliveries not shown to clients\n", r.Resends, r.RedeliveriesHidden)
	lost, duplicated, reordered, phantom := 0, 0, 0, 0
	for _, s := range r.Stores {
		where := "home, at " + s.Owner
		if !s.Home {
			where = "NOT home, at " + s.Holder
		}
		fmt.Fprintf(&b, "  store %-6s %s, epoch %d, after %d take-overs and %d hand-overs; client errors %d\n", s.Name, where, s.Epoch, s.Takeovers, s.Handovers, s.ClientErrors)
		fmt.Fprintf(&b, "  … messages   %d sent, %d confirmed, %d received: lost %d, duplicated %d, reordered %d\n", s.Sent, s.Confirmed, s.Received, s.Lost, s.Duplicated, s.Reordered)
		if s.Takeovers > 0 {
			fmt.Fprintf(&b, "  … silence    p50 %.1f ms, max %.1f ms, over every client and take-over\n", s.Silence.P50, s.Silence.Max)
		}
		if s.Handovers > 0 {
			fmt.Fprintf(&b, "  … pause      p50 %.1f ms, max %.1f ms, over every client and hand-over\n", s.Pause.P50, s.Pause.Max)
		}
		lost, duplicated, reordered, phantom = lost+s.Lost, duplicated+s.Duplicated, reordered+s.Reordered, phantom+s.Phantom
	}
	for _, bar := range r.Bars {
		fmt.Fprintf(&b, "  bar          %s\n", bar.text())
	}
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "  problem      %s\n", p)
	}
	writeVerdict(&b, r.Verdict, lost, duplicated, reordered, phantom)
	_, _ = io.WriteString(w, b.String())
}

// writeVerdict writes the line that says it all.
func writeVerdict(b *strings.Builder, verdict string, lost, duplicated, reordered, phantom int) {
	fmt.Fprintf(b, "\n  VERDICT: %s. lost %d, duplicated %d, reordered %d", strings.ToUpper(verdict), lost, duplicated, reordered)
	if phantom > 0 {
		fmt.Fprintf(b, ", phantom %d", phantom)
	}
	b.WriteString("\n")
}

// writeJSON writes a result as one line.
func writeJSON(w io.Writer, result any) error {
	line, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("encode result: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", line)
	return err
}
