package gossip_test

import (
	"fmt"

	"github.com/understudy-mq/understudy/health/gossip"
)

func Example() {
	broker, err := gossip.New(gossip.Config{Name: "broker-1", Kind: gossip.Broker})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer broker.Close()
	sidecar, err := gossip.New(gossip.Config{Name: "sidecar-1", Kind: gossip.Sidecar, Join: []string{broker.Addr()}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sidecar.Close()

	_ = broker.Announce(gossip.Announcement{
		Endpoints: []string{"127.0.0.1:61613"},
		Stores:    []gossip.Store{{UUID: "5f3e", Name: "orders", Epoch: 7, Role: gossip.Active}},
	})
	for {
		view, changed := sidecar.Snapshot()
		for _, peer := range view.Peers {
			for _, e := range peer.Evidence() { // for health.Monitor.Observe
				if len(e.Stores) == 1 && e.Stores[0].Epoch == 7 {
					fmt.Println(peer.Node, "is", peer.Presence, "and says that", e.Target, "is active at epoch", e.Stores[0].Epoch)
					return
				}
			}
		}
		<-changed
	}
	// Output: broker-1 is alive and says that 127.0.0.1:61613 is active at epoch 7
}
