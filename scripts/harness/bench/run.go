package bench

import (
	"context"
	"os"
	"runtime"
	"strings"
	"time"
)

// Plan says which parts a run has; zero clients leave a part out.
type Plan struct {
	Rounds bool          // throughput, CPU time, latency
	Idle   []int         // numbers of idle clients
	Held   int           // clients whose broker is killed
	Settle time.Duration // before memory is looked at
}

// Run makes the report. Parts that were done are returned with an error that came later.
func Run(ctx context.Context, opt Options, plan Plan) ([]Line, error) {
	var all []Line
	if plan.Rounds {
		lines, err := runRounds(ctx, opt)
		if err != nil {
			return nil, err
		}
		all = lines
	}
	for _, n := range plan.Idle {
		n, err := opt.possible(n)
		if err != nil {
			return all, err
		}
		var haproxy float64
		for _, via := range []Via{HAProxy, Sidecar} {
			opt.Logf("%d idle clients via %s", n, via)
			r, err := MeasureIdle(ctx, opt, via, n, plan.Settle)
			if err != nil {
				return all, err
			}
			lines := idleLines(via, r)
			if via == HAProxy {
				haproxy = r.Bytes
			} else {
				lines[0].ToHAProxy, lines[0].With = ratio([]float64{r.Bytes}, []float64{haproxy}), "haproxy"
			}
			all = append(all, lines...)
		}
	}
	if plan.Held > 0 {
		n, err := opt.possible(plan.Held)
		if err != nil {
			return all, err
		}
		opt.Logf("%d held clients", n)
		r, err := MeasureHeld(ctx, opt, n, plan.Settle)
		if err != nil {
			return all, err
		}
		all = append(all, heldLines(r)...)
	}
	return all, nil
}

// possible is how many of n clients the limit of open files lets this program have, and says so if that is fewer.
func (opt Options) possible(n int) (int, error) {
	limit, err := files()
	if most := limit - spareFiles; err == nil && n > most {
		opt.Logf("%d clients instead of %d: a process may have no more than %d open files here; raise the hard limit (ulimit -Hn)", most, n, limit)
		n = most
	}
	return n, err
}

func runRounds(ctx context.Context, opt Options) ([]Line, error) {
	w := &field{opt: opt}
	defer w.close()
	if err := w.open(ctx); err != nil {
		return nil, err
	}
	if err := w.run(ctx); err != nil {
		return nil, err
	}
	return w.lines(), nil
}

// LoadAverage is the system's, over one, five and fifteen minutes; empty where it cannot be told.
func LoadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if f := strings.Fields(string(text)); err == nil && len(f) >= 3 {
		return strings.Join(f[:3], " ")
	}
	return ""
}

// Threads is how many the sidecar may run on, and so may haproxy.
func Threads() int { return runtime.GOMAXPROCS(0) }
