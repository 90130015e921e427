package routing_test

import (
	"fmt"
	"math/rand/v2"

	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/routing"
)

// A session follows its store, and is not sent to a broker whose epoch is over.
func ExampleChoose() {
	verdicts := map[health.Target]health.Verdict{
		"10.0.0.1:61613": {State: health.Active, Stores: []health.Served{{UUID: "orders", Epoch: 4}}},
		"10.0.0.2:61613": {State: health.Active, Stores: []health.Served{{UUID: "orders", Epoch: 5}}},
		"10.0.0.3:61613": {State: health.Standby},
	}
	table := routing.NewTable(routing.TableConfig{
		Verdicts: func() (map[health.Target]health.Verdict, <-chan struct{}) { return verdicts, nil },
	})
	table.Set("static", []routing.Endpoint{{Target: "10.0.0.1:61613"}, {Target: "10.0.0.2:61613"}, {Target: "10.0.0.3:61613"}})

	wants := routing.Wants{Store: "orders", Epochs: map[string]uint64{"orders": 5}}
	choice, err := routing.Choose("10.0.0.1:61613", table.View().Candidates, wants, rand.New(rand.NewPCG(1, 2)))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range choice.Targets {
		fmt.Println(r.Target, r.Rank)
	}
	fmt.Println("left out:", choice.Stale)
	// Output:
	// 10.0.0.2:61613 serves
	// 10.0.0.3:61613 standby
	// left out: [10.0.0.1:61613]
}
