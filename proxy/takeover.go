package proxy

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/session"
)

// move is one take-over, from the loss of a live leg to the next live one.
type move struct {
	lost, dialled, live time.Time
	from, to            health.Target
	epochFrom, epochTo  uint64
	why                 error
	attempts            int           // connects it took
	silence             time.Duration // as the recorder measured it; lost to live if it did not
	hidden, resent      uint64        // between lost and live; what a new broker delivers again later is counted, and not in this line
}

// report fills in what the recorder knows, from its reports before and after.
func (m *move) report(was, now session.Report) {
	m.hidden, m.resent = grown(was.Hidden, now.Hidden), grown(was.Resent, now.Resent)
	if m.silence = m.live.Sub(m.lost); now.Takeovers != was.Takeovers && now.LastSilence > 0 {
		m.silence = now.LastSilence
	}
}

// Phases of a take-over, as metrics name them.
const (
	phaseDetect  = "detect"  // silence before the loss was noticed, as far as the recorder knows
	phaseDial    = "dial"    // lost → connected to the broker that took the session
	phaseReplay  = "replay"  // connected → replay confirmed
	phaseSilence = "silence" // all of it
)

func (m *move) phases() map[string]time.Duration {
	return map[string]time.Duration{
		phaseDetect:  max(m.silence-m.live.Sub(m.lost), 0),
		phaseDial:    max(m.dialled.Sub(m.lost), 0),
		phaseReplay:  max(m.live.Sub(m.dialled), 0),
		phaseSilence: m.silence,
	}
}

func (m *move) attrs() []slog.Attr {
	ph := m.phases()
	why := "unknown"
	if m.why != nil {
		why = m.why.Error()
	}
	return []slog.Attr{
		slog.String("from", string(m.from)), slog.String("to", string(m.to)),
		slog.Uint64("epoch_from", m.epochFrom), slog.Uint64("epoch_to", m.epochTo),
		slog.String("why", why), slog.Time("lost_at", m.lost),
		slog.Duration("detect", ph[phaseDetect]), slog.Duration("dial", ph[phaseDial]), slog.Duration("replay", ph[phaseReplay]),
		slog.Duration("silence", ph[phaseSilence]), slog.Int("attempts", m.attempts),
		slog.Uint64("hidden", m.hidden), slog.Uint64("resent", m.resent),
	}
}

// grown is how much a counter grew; one that a new recorder started again did not.
func grown(was, now uint64) uint64 {
	if now < was {
		return 0
	}
	return now - was
}

// staleEpoch is why a session is taken from a broker that it was live on.
type staleEpoch struct {
	store   string
	at, now uint64
}

func (e staleEpoch) Error() string {
	return fmt.Sprintf("the broker serves store %s at epoch %d, and epoch %d was seen: it has lost the store", e.store, e.at, e.now)
}

// Code makes it no evidence of a fault, and has the broker probed.
func (e staleEpoch) Code() string { return codeEpoch }
