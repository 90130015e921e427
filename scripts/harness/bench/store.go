package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"syscall"
	"time"
)

const (
	storeQueue       = "/queue/bench-store"
	storeConnections = 4
	metricIndex      = "understudy_broker_index_bytes"
	metricMessages   = "understudy_broker_queue_messages"
	metricOut        = "understudy_broker_messages_out"
)

// recovered is what a broker says on /status of the recovery that it began with.
type recovered struct {
	Role     string  `json:"role"`
	Messages int     `json:"messages"`
	Millis   float64 `json:"recovery_ms"`
	Records  int     `json:"recovered_records"`
}

// measureStore fills a broker with messages that nobody takes, looks at its memory, kills it, and has the next one read the store without a warm copy.
func measureStore(ctx context.Context, opt Options, messages int) ([]Versus, error) {
	dir := filepath.Join(opt.Data, "store")
	opt.Logf("a broker with %d messages", messages)
	start := func() (*understudy, error) {
		return startBroker(ctx, opt.Understudy, opt.Scratch, dir, "127.0.0.1:0", 1000)
	}
	b, err := start()
	if err != nil {
		return nil, err
	}
	defer func() { b.stop(syscall.SIGKILL) }()
	if err := fillBroker(ctx, b, messages); err != nil {
		return nil, err
	}
	lines, err := memoryLines(b, messages)
	if err != nil {
		return lines, err
	}
	var read, serves []sample
	for range opt.Rounds {
		b.stop(syscall.SIGKILL)
		killed := time.Now()
		if b, err = start(); err != nil {
			return lines, err
		}
		served := time.Since(killed)
		said, err := b.recovery()
		if err != nil {
			return lines, err
		}
		if said.Messages != messages {
			return lines, fmt.Errorf("recover a broker: it has %d messages instead of %d", said.Messages, messages)
		}
		read = append(read, sample{frames: said.Records, took: time.Duration(said.Millis * float64(time.Millisecond))})
		serves = append(serves, sample{frames: messages, took: served})
	}
	setting := fmt.Sprintf("%d messages of %d octets in one queue, the broker as it is by default, killed", messages, bodyBytes)
	lines = append(lines,
		Versus{Case: "broker's recovery", Measure: "read", Unit: "records/s", Result: resultOf(read), With: "nothing", Setting: setting + ", as /status says"},
		Versus{Case: "broker's start", Measure: "served", Unit: "messages/s", Result: resultOf(serves), With: "nothing", Setting: setting + ", from exec to CONNECTED"})
	lines[len(lines)-2].atLeast(recoveryBar)
	resident, err := residentLine(b, "resident, recovered", setting+", and started again")
	return append(lines, resident), err
}

// fillBroker sends as a fast client does; every message is confirmed.
func fillBroker(ctx context.Context, b *understudy, messages int) error {
	const limit = 10 * time.Minute
	each := messages / storeConnections
	_, err := door{addr: b.listen, host: "bench"}.each(ctx, storeConnections, batch, func(i int, c *client) error {
		n := each
		if i == 0 {
			n += messages % storeConnections
		}
		sent, err := c.pipeline(storeQueue, limit, n)
		if err == nil && sent != n {
			err = fmt.Errorf("sent %d messages of %d in %v", sent, n, limit)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("fill a broker with %d messages: %w", messages, err)
	}
	return nil
}

// single is a line of one figure that is compared with nothing.
func single(name, measure, unit string, figure float64, setting string) Versus {
	return Versus{Case: name, Measure: measure, Unit: unit, Result: Result{Figure: figure, Rounds: Span{1, figure, figure, figure}}, With: "nothing", Setting: setting}
}

// residentLine is what the process takes, all in all.
func residentLine(b *understudy, name, setting string) (Versus, error) {
	rss, err := b.rss()
	return single(name, "memory of the process", "MiB", float64(rss)/(1<<20), setting), err
}

// memoryLines are what a broker with a backlog takes. One that does not say what its index takes has no line for it.
func memoryLines(b *understudy, messages int) ([]Versus, error) {
	setting := fmt.Sprintf("%d messages of %d octets in one queue, the broker as it is by default", messages, bodyBytes)
	resident, err := residentLine(b, "resident", setting+", all just sent")
	if err != nil {
		return nil, err
	}
	lines := []Versus{resident}
	var value [3]float64
	for i, name := range []string{metricMessages, metricOut, metricIndex} {
		told := false
		if value[i], told, err = b.metric(name); err != nil || !told {
			return lines, err
		}
	}
	if int(value[0]) != messages {
		return lines, fmt.Errorf("a broker that took %d messages says that it has %v", messages, value[0])
	}
	if value[1] == 0 {
		return lines, nil // all are in memory: there are too few to say something
	}
	index := single("index", "memory for a message on disk", "octets", value[2]/value[1],
		fmt.Sprintf("%s; %.0f of the messages are on disk only, and this is what /metrics says of those; the broker's own tests compare that with its heap", setting, value[1]))
	index.atMost(indexBar)
	return append(lines, index), nil
}

// recovery asks the broker how it came up.
func (u *understudy) recovery() (r recovered, err error) {
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Get("http://" + u.admin + "/status")
	if err != nil {
		return r, fmt.Errorf("ask the broker for its status: %w", err)
	}
	defer answer.Body.Close()
	var status struct {
		Broker struct {
			Stores []recovered `json:"stores"`
		} `json:"broker"`
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxMetrics)).Decode(&status); err != nil {
		return r, fmt.Errorf("read the broker's status: %w", err)
	}
	if len(status.Broker.Stores) == 1 {
		r = status.Broker.Stores[0]
	}
	if r.Records == 0 || r.Millis <= 0 {
		return r, fmt.Errorf("the broker's status does not say what it recovered: %+v", r)
	}
	return r, nil
}
