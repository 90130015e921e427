package health_test

import (
	"fmt"
	"time"

	"github.com/understudy-mq/understudy/health"
)

func ExampleDetector() {
	d := health.NewDetector(health.Thresholds{})
	began := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	d.Add("one:61613", began)
	d.Add("two:61613", began)
	for i, e := range []health.Evidence{
		{Target: "one:61613", Kind: health.ConnLive, Stores: []health.Served{{UUID: "5f3e", Epoch: 7}}},    // a session logged in
		{Target: "one:61613", Kind: health.GossipLeft},                                                     // hearsay
		{Target: "one:61613", Kind: health.ProbeActive, Stores: []health.Served{{UUID: "5f3e", Epoch: 7}}}, // which a probe does not bear out
		{Target: "two:61613", Kind: health.ConnLive, Stores: []health.Served{{UUID: "5f3e", Epoch: 8}}},    // somebody else took the store
		{Target: "one:61613", Kind: health.DialFailed, Detail: "connect: connection refused"},              // and the old owner is gone
	} {
		e.At = began.Add(time.Duration(i+1) * time.Second)
		for _, v := range d.Observe(e).Changed {
			fmt.Println(v.Target, v.State, v.Reason, "because of", v.Because.Kind, "at", v.Because.Target)
		}
	}
	// Output:
	// one:61613 active  because of conn-live at one:61613
	// one:61613 suspect gossip because of gossip-left at one:61613
	// one:61613 active  because of probe-active at one:61613
	// two:61613 active  because of conn-live at two:61613
	// one:61613 standby stale-epoch because of conn-live at two:61613
	// one:61613 down  because of dial-failed at one:61613
}
