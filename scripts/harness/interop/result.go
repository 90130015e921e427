package interop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Result is a cell's line of the table.
type Result struct {
	Broker string `json:"broker"`
	Client string `json:"client"`
	Fault  Fault  `json:"fault"`
	Via    Way    `json:"via"`
	Counts
	ClientErrors int `json:"client_errors"`
	// Planned is what the producer was told to send.
	Planned int    `json:"planned"`
	Promise string `json:"promise"`
	// Kept is nil where nothing is promised.
	Kept   *bool    `json:"kept"`
	Broken []string `json:"broken,omitempty"`
	Logs   string   `json:"logs,omitempty"`
}

// results counts.
func (o *round) results(missed error) []Result {
	all := make([]Result, len(o.cells))
	for i, c := range o.cells {
		all[i] = o.result(c, missed)
		if err := o.writeLog(c); err != nil {
			o.Logf("%v", err)
		}
	}
	return all
}

func (o *round) result(c *running, missed error) Result {
	r := Result{Broker: o.cluster.Kind(), Client: c.Client.Name, Fault: o.fault, Via: c.Via, Planned: c.job.Count}
	if c.producer != nil {
		c.evidence.Producer = c.producer.events()
	}
	if c.consumer != nil {
		c.evidence.Consumer = c.consumer.events()
	}
	c.evidence.Fault = o.struck
	r.Counts = Check(c.evidence)
	r.ClientErrors = len(r.Errors)
	var broken []string
	for _, err := range []error{c.aborted, c.trouble()} {
		if err != nil {
			broken = append(broken, err.Error())
		}
	}
	if c.Via == Direct {
		r.Promise, r.Broken = "none", broken // the harness's own trouble
		return r
	}
	r.Promise = o.promise.Text
	broken = append(broken, o.promise.Broken(o.fault, r.Counts, r.Planned)...)
	if missed != nil {
		broken = append(broken, missed.Error())
	}
	kept := len(broken) == 0
	r.Kept, r.Broken = &kept, broken
	return r
}

func (c *running) trouble() error {
	var all error
	for _, p := range []*client{c.producer, c.consumer} {
		if p != nil {
			all = errors.Join(all, p.trouble())
		}
	}
	return all
}

// writeLog keeps what a cell's programs said, in the order of time, for who wants to know why.
func (o *round) writeLog(c *running) error {
	f, err := os.Create(filepath.Join(o.dir, c.job.Run+"-"+c.Client.Name+"-"+string(c.Via)+".log"))
	if err != nil {
		return fmt.Errorf("keep the log of a cell: %w", err)
	}
	defer f.Close()
	fmt.Fprintf(f, "# fault %s at %s, queue %s\n", o.fault, o.struck.Format(time.RFC3339Nano), c.job.Destination)
	for _, log := range []struct {
		who    string
		events []Event
	}{{"producer", c.evidence.Producer}, {"consumer", c.evidence.Consumer}, {"left", c.evidence.Left}} {
		for _, e := range log.events {
			fmt.Fprintf(f, "%s %s %c %d", e.At.Format("15:04:05.000000"), log.who, e.Kind, e.Seq)
			if e.Kind == 'E' {
				fmt.Fprintf(f, " %s %v", e.Error.Message, e.Error.Headers)
			}
			fmt.Fprintln(f)
		}
	}
	for _, p := range []*client{c.producer, c.consumer} {
		if p != nil && p.errors.String() != "" {
			fmt.Fprintf(f, "# standard error of %s:\n%s\n", p.name, p.errors.String())
		}
	}
	return f.Close()
}
