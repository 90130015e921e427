package discover

import (
	"context"
	"errors"
	"time"

	"github.com/understudy-mq/understudy/routing"
)

// DNS says whom to ask and how long to believe it. The zero value asks the system's resolvers.
type DNS struct {
	// Servers are resolvers, host:port (port 53 if absent). None: those of ResolvConf, which is read again before each lookup.
	Servers []string
	// ResolvConf is the path of a resolv.conf; "" means /etc/resolv.conf.
	ResolvConf string
	// Timeout of one question to one resolver; 0 means 2 s. The next resolver is asked as well after a quarter of it.
	Timeout time.Duration
	// TTLs are taken as no less than MinTTL (0 means 1 s) and no more than MaxTTL (0 means 30 s). MinTTL also keeps Refresh from asking more often.
	MinTTL, MaxTTL time.Duration
}

type resolver struct{ cfg DNS }

func newResolver(cfg DNS) (*resolver, error) { return &resolver{cfg}, nil }

func (d *Discovery) runSRV(ctx context.Context, s *source, name string, r *resolver) {
	<-ctx.Done()
}

func (r *resolver) lookup(ctx context.Context, name string) ([]routing.Endpoint, time.Duration, error) {
	return nil, 0, errors.ErrUnsupported
}
