package discover_test

import (
	"fmt"

	"github.com/understudy-mq/understudy/routing"
	"github.com/understudy-mq/understudy/routing/discover"
)

// A static list is a source like any other; what it says ends up in a Table.
func ExampleStart() {
	brokers, err := discover.ParseStatic([]string{"stomp://127.0.0.1:61613", "stomp://127.0.0.1:61614?priority=10"})
	if err != nil {
		fmt.Println(err)
		return
	}
	table := routing.NewTable(routing.TableConfig{})
	d, err := discover.Start(discover.Config{Sink: table, Static: brokers})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer d.Close()
	for _, c := range table.View().Candidates {
		fmt.Println(c.Target, "tier", c.Tier, "from", c.Sources)
	}
	// Output:
	// 127.0.0.1:61613 tier 0 from [static]
	// 127.0.0.1:61614 tier 10 from [static]
}
