// Command brokers keeps a cluster of real brokers running until it is interrupted, for work by hand.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/understudy-mq/understudy/scripts/harness/brokers"
)

// startLimit covers the slowest kind, three nodes of RabbitMQ on a busy machine.
const startLimit = 3 * time.Minute

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, out, errs io.Writer) int {
	flags := flag.NewFlagSet("brokers", flag.ContinueOnError)
	flags.SetOutput(errs)
	binary := flags.String("understudy", "", "path of the understudy binary, for the kind paired")
	nodes := flags.Int("nodes", 0, "number of nodes; 0 means the kind's own")
	flags.Usage = func() {
		fmt.Fprintf(errs, "usage: brokers [flags] KIND\n\nStarts brokers on loopback and keeps them until SIGINT or SIGTERM. Kinds:\n")
		for _, kind := range brokers.Kinds() {
			fmt.Fprintf(errs, "  %-14s %s\n", kind, brokers.About(kind))
		}
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() != 1 {
		flags.Usage()
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := keep(ctx, flags.Arg(0), *binary, *nodes, out); err != nil {
		fmt.Fprintln(errs, "brokers:", err)
		return 1
	}
	return 0
}

func keep(ctx context.Context, kind, binary string, nodes int, out io.Writer) (err error) {
	starting, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	c, err := brokers.Start(starting, kind, brokers.Options{Understudy: binary, Nodes: nodes, Logf: func(format string, args ...any) {
		fmt.Fprintf(out, "# "+format+"\n", args...)
	}})
	if err != nil {
		return err
	}
	defer func() {
		if closed := c.Close(); err == nil {
			err = closed
		}
	}()
	user, pass := c.Login()
	destination, send, subscribe := c.Queue("NAME")
	fmt.Fprintf(out, "kind %s, version %s\nlogin %q passcode %q host %q\nqueue %s, SEND with %v, SUBSCRIBE with %v\n",
		c.Kind(), c.Version(), user, pass, c.Vhost(), destination, send, subscribe)
	for i, n := range c.Nodes() {
		fmt.Fprintf(out, "node %d %s stomp %s pid %d\n", i, n.Name(), n.Addr(), n.PID())
	}
	active, err := c.Active(starting)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "active %d\nready\n", active)
	<-ctx.Done()
	return nil
}
