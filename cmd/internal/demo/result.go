package demo

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Result is the outcome of a run. Its JSON form is what scripts read.
type Result struct {
	Verdict    string `json:"verdict"` // clean, failed
	Sent       int    `json:"sent"`
	Confirmed  int    `json:"confirmed"`
	Received   int    `json:"received"`
	Lost       int    `json:"lost"`       // confirmed (without receipts: sent) and never received
	Duplicated int    `json:"duplicated"` // deliveries beyond the first
	Reordered  int    `json:"reordered"`  // by producer and consumer
	Phantom    int    `json:"phantom"`    // never sent, or altered
	Kills      int    `json:"kills"`
	Silence    struct {
		P50 float64 `json:"p50"`
		Max float64 `json:"max"`
	} `json:"silence_ms"`
	InFlight struct {
		Sends   int `json:"sends"`
		Unacked int `json:"unacked"`
	} `json:"in_flight_at_kill"` // sums over all faults
	RedeliveriesHidden uint64   `json:"redeliveries_hidden"`
	Resends            uint64   `json:"resends"`
	ClientsReconnected int      `json:"clients_reconnected"` // client connections that ended before the run did
	Epoch              uint64   `json:"epoch"`               // the last
	RatePerSecond      float64  `json:"rate_per_second"`     // messages sent per second of the sending phase
	DurationMS         int64    `json:"duration_ms"`
	Problems           []string `json:"problems,omitempty"`
	// Backlog is there if the run had one. What is lost, doubled, or wrong of it counts there, and above as well.
	Backlog *backlogResult `json:"backlog,omitempty"`
	Config  struct {
		Producers    int    `json:"producers"`
		Consumers    int    `json:"consumers"`
		Rate         int    `json:"rate"`
		Payload      int    `json:"payload"`
		Messages     int    `json:"messages"`
		Backlog      int    `json:"backlog"`
		MaxMemory    int64  `json:"max_memory"`
		Ack          string `json:"ack"`
		Transactions bool   `json:"transactions"`
		Receipts     bool   `json:"receipts"`
		Fault        string `json:"fault"`
		Direct       bool   `json:"direct"`
		Seed         uint64 `json:"seed"`
	} `json:"config"`
}

// Clean reports whether the run went as promised: nothing lost, doubled, reordered or made up, no client broken, nothing left undone.
func (r *Result) Clean() bool {
	return r.Lost == 0 && r.Duplicated == 0 && r.Reordered == 0 && r.Phantom == 0 && r.ClientsReconnected == 0 && len(r.Problems) == 0
}

// fill takes over what the parts of the run have counted.
func (r *Result) fill(cfg Config, sum counts, lost int, silences []time.Duration) {
	r.Sent, r.Confirmed, r.Received = sum.sent, sum.confirmed, sum.received
	r.Lost, r.Duplicated, r.Reordered, r.Phantom = lost, sum.duplicated, sum.reordered, sum.phantom
	if b := r.Backlog; b != nil {
		r.Lost, r.Duplicated, r.Reordered, r.Phantom = r.Lost+b.Lost, r.Duplicated+b.Duplicated, r.Reordered+b.Reordered, r.Phantom+b.Phantom
		b.judge()
	}
	p50, most := spread(silences)
	r.Silence.P50, r.Silence.Max = milliseconds(p50), milliseconds(most)
	c := &r.Config
	c.Producers, c.Consumers, c.Rate, c.Payload, c.Messages = cfg.Producers, cfg.Consumers, cfg.Rate, cfg.Payload, cfg.Messages
	c.Backlog, c.MaxMemory = cfg.Backlog, cfg.MaxMemory
	c.Ack, c.Transactions, c.Receipts, c.Fault, c.Direct, c.Seed = cfg.Ack, cfg.Transactions, cfg.Receipts, cfg.Fault, cfg.Direct, cfg.Seed
	if r.Verdict = "failed"; r.Clean() {
		r.Verdict = "clean"
	}
}

// milliseconds rounds to tenths.
func milliseconds(d time.Duration) float64 {
	return float64(d.Round(100*time.Microsecond)) / float64(time.Millisecond)
}

// text writes the verdict for people.
func (r *Result) text(w io.Writer) {
	through := "the sidecar"
	if r.Config.Direct {
		through = "nothing: straight to the brokers"
	}
	faults := "kills"
	if r.Config.Fault == FaultReset {
		faults = "resets"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n  clients      %d producers and %d consumers (go-stomp, no fail-over logic) through %s\n", r.Config.Producers, r.Config.Consumers, through)
	fmt.Fprintf(&b, "  messages     %d sent, %d confirmed, %d received (%.0f/s, %d octets each, ack:%s)\n",
		r.Sent, r.Confirmed, r.Received, r.RatePerSecond, r.Config.Payload, r.Config.Ack)
	fmt.Fprintf(&b, "  %-12s %d, with %d sends unconfirmed and %d messages unacknowledged in the air, in all\n", faults, r.Kills, r.InFlight.Sends, r.InFlight.Unacked)
	if r.Kills > 0 && r.Silence.Max == 0 {
		b.WriteString("  silence      without end: no client heard anything after the fault\n")
	} else {
		fmt.Fprintf(&b, "  silence      p50 %.1f ms, max %.1f ms, over every client and every fault\n", r.Silence.P50, r.Silence.Max)
	}
	if r.Backlog != nil {
		r.Backlog.text(&b)
	}
	fmt.Fprintf(&b, "  hidden work  %d sends played again, %d redeliveries not shown to clients\n", r.Resends, r.RedeliveriesHidden)
	fmt.Fprintf(&b, "  connections  %d of %d clients lost theirs\n", r.ClientsReconnected, r.Config.Producers+r.Config.Consumers)
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "  problem      %s\n", p)
	}
	writeVerdict(&b, r.Verdict, r.Lost, r.Duplicated, r.Reordered, r.Phantom)
	_, _ = io.WriteString(w, b.String())
}
