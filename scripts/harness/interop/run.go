package interop

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/understudy-mq/understudy/scripts/harness/brokers"
)

// Plan is a table to be made: every combination is a cell.
type Plan struct {
	Brokers []string
	Clients []Client
	Faults  []Fault
	Ways    []Way
	// Together is how many cells one fault strikes: more make the table faster, and their load larger.
	Together int
}

// startLimit covers the slowest kind, three nodes of RabbitMQ on a busy machine.
const startLimit = 3 * time.Minute

// Run makes the table and hands each result over as soon as it is there. A round that cannot be run gives broken cells and a new cluster; an
// error means that the table could not go on.
func (r *Runner) Run(ctx context.Context, p Plan, line func(Result)) error {
	for _, kind := range p.Brokers {
		if err := r.runBroker(ctx, kind, p, line); err != nil {
			return fmt.Errorf("broker %s: %w", kind, err)
		}
	}
	return nil
}

func (r *Runner) runBroker(ctx context.Context, kind string, p Plan, line func(Result)) (err error) {
	cluster, err := r.startCluster(ctx, kind)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	for _, fault := range p.Faults {
		for cells := range slices.Chunk(p.cells(), max(1, p.Together)) {
			begun := time.Now()
			results, failure := r.Round(ctx, cluster, fault, cells)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if failure != nil {
				r.Logf("%s, %s: %v", kind, fault, failure)
				if results == nil {
					results = failed(kind, fault, cells, failure)
				}
				if err := cluster.Close(); err != nil {
					return err
				}
				if cluster, err = r.startCluster(ctx, kind); err != nil {
					return err
				}
			}
			for _, result := range results {
				line(result)
			}
			r.Logf("%s, %s: %d cells in %.1f s", kind, fault, len(cells), time.Since(begun).Seconds())
		}
	}
	return nil
}

func (r *Runner) startCluster(ctx context.Context, kind string) (brokers.Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	return brokers.Start(ctx, kind, brokers.Options{Understudy: r.Binary, Logf: r.Logf})
}

// cells are those of one broker and fault. The ways of one client are neighbours, so that one fault strikes both.
func (p Plan) cells() []Cell {
	var all []Cell
	for _, c := range p.Clients {
		for _, via := range p.Ways {
			all = append(all, Cell{c, via})
		}
	}
	return all
}

// failed are the results of a round that could not be run: nothing was shown, so nothing was kept.
func failed(kind string, fault Fault, cells []Cell, err error) []Result {
	all := make([]Result, len(cells))
	for i, c := range cells {
		kept := false
		all[i] = Result{Broker: kind, Client: c.Client.Name, Fault: fault, Via: c.Via, Kept: &kept, Broken: []string{err.Error()}}
		all[i].Errors = []string{}
	}
	return all
}
