package broker_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/understudy-mq/understudy/broker"
)

func Example() {
	dir, err := os.MkdirTemp("", "store")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	active := make(chan struct{})
	srv, err := broker.New(broker.Config{Stores: []broker.StoreConfig{{Name: "orders", Dir: dir, Own: true}}, Listener: ln, Changed: func(s broker.Status) {
		if s.Stores[0].Role == broker.Active {
			close(active)
		}
	}})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	<-active

	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		panic(err)
	}
	_, _ = io.WriteString(conn, "CONNECT\naccept-version:1.2\nhost:any\n\n\x00")
	_, _ = io.WriteString(conn, "SEND\ndestination:/queue/greetings\nreceipt:1\n\nhello\x00")
	answers := bufio.NewReader(conn)
	for range 2 {
		frame, _ := answers.ReadString(0)
		fmt.Println(strings.TrimSpace(frame)[:7])
	}
	conn.Close()
	cancel()
	fmt.Println(<-ended)
	// Output:
	// CONNECT
	// RECEIPT
	// <nil>
}
