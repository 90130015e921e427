package main

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/understudy-mq/understudy/cmd/internal/demo"
	"github.com/understudy-mq/understudy/cmd/internal/ops"
)

const demoDescription = `Starts two brokers on one directory, a DNS server with their SRV records, a sidecar that finds them there, and clients that use an
existing STOMP library without any fail-over logic. Kills the active broker again and again, and judges what the clients saw.
Everything listens on loopback, on free ports, and lives in a temporary folder.

--stores plays another story: so many servers, each with a store of its own, and --standby servers without one stand for each other. Clients use all
stores. Servers are killed until one is left with everything, and brought back; every store goes home by itself.`

func demoCommand() *cli.Command {
	return &cli.Command{
		Name: "demo", Usage: "kill brokers under running clients and judge what the clients saw", Description: demoDescription,
		Flags: []cli.Flag{
			number("messages", 0, "Send that many messages in all; 0 sends until the kills are done."),
			number("kills", 6, "How often to kill the active broker."),
			number("rate", 2000, "Messages per second offered by all producers together."),
			number("producers", 8, "How many producers (of each store; 4 unless given); each has one connection, and one unconfirmed SEND or transaction at a time."),
			number("consumers", 2, "How many consumers compete for the queue (of each store)."),
			number("payload", 512, "Octets of a message's body; 1024 with --backlog unless given."),
			number("backlog", 0, "Kill on after that many messages were put into a queue that nobody consumes, and say what difference they make."),
			number("stores", 0, "Play with that many stores, each with a server of its own; all servers but one are killed, and come back."),
			number("standby", 0, "With --stores: servers beside those, without a store of their own."),
			number("handovers", 0, "With --stores: kill nobody, but hand every store over and back by command, that often."),
			duration("failback-after", time.Second, "With --stores: the servers' --failback-after."),
			octets("max-memory", 0, "The brokers' --max-memory; 0 means theirs."),
			duration("interval", time.Second, "Least time between two kills; unused when messages are counted; 200ms with --handovers unless given."),
			text("ack", "client-individual", "How consumers acknowledge: client, client-individual or auto."),
			yes("transactions", false, "Send, and acknowledge, in transactions of ten."),
			yes("receipts", true, "Ask for a receipt of each SEND or COMMIT; false sends and forgets."),
			text("fault", demo.FaultKill, "What happens: kill (SIGKILL of the active broker) or reset (its connections break, it lives)."),
			yes("direct", false, "Leave the sidecar out, as the negative control: the clients fail, and the exit code is 1."),
			&cli.Uint64Flag{Name: "seed", Usage: "Seed of bodies and delays; random unless given.", EnvVars: env("seed")},
			yes("keep", false, "Keep the folder with the journal and the logs."),
			yes("verbose", false, "Show each client's silence and what the processes log."),
			yes("json", false, "End with one line of JSON."),
		},
		Action: runDemo,
	}
}

func runDemo(c *cli.Context) error {
	cfg := demo.Config{
		Messages: c.Int("messages"), Kills: c.Int("kills"), Rate: c.Int("rate"), Producers: c.Int("producers"), Consumers: c.Int("consumers"),
		Payload: c.Int("payload"), Ack: c.String("ack"), Transactions: c.Bool("transactions"), Receipts: c.Bool("receipts"),
		Fault: c.String("fault"), Direct: c.Bool("direct"), Seed: c.Uint64("seed"), Keep: c.Bool("keep"), Verbose: c.Bool("verbose"),
		JSON: c.Bool("json"), Out: c.App.Writer, Logger: slog.New(slog.DiscardHandler),
	}
	v := values{c: c}
	cfg.Backlog, cfg.MaxMemory = c.Int("backlog"), v.octets("max-memory", 0)
	if cfg.Backlog > 0 && !c.IsSet("payload") {
		cfg.Payload = 0 // the demo's own
	}
	cfg.Interval, cfg.FailbackAfter = v.positive("interval"), v.positive("failback-after")
	cfg.Stores, cfg.Standbys, cfg.Handovers = v.count("stores", 0), v.count("standby", 0), v.count("handovers", 0)
	for name, field := range map[string]*int{"kills": &cfg.Kills, "producers": &cfg.Producers} {
		if cfg.Stores > 0 && !c.IsSet(name) {
			*field = 0 // the demo's own
		}
	}
	if cfg.Handovers > 0 && !c.IsSet("interval") {
		cfg.Interval = 0 // the demo's own
	}
	for _, n := range []string{"rate", "producers", "consumers", "payload"} {
		v.count(n, 1)
	}
	if v.err != nil {
		return v.err
	}
	if !c.IsSet("seed") {
		cfg.Seed = rand.Uint64()
	}
	ctx, _, stop := ops.Signals(c.Context) // the demo ends its children at once, whichever signal it is
	defer stop()
	result, err := playDemo(ctx, cfg)
	var field *demo.FieldError
	if errors.As(err, &field) {
		return &ops.UsageError{Flag: field.Flag, Value: field.Value, Hint: field.Hint}
	}
	if err != nil {
		return err
	}
	if !result.Clean() {
		return errVerdict
	}
	return nil
}

// verdict is what both kinds of demo end with.
type verdict interface{ Clean() bool }

func playDemo(ctx context.Context, cfg demo.Config) (verdict, error) {
	if cfg.Stores > 0 || cfg.Standbys > 0 || cfg.Handovers > 0 {
		return demo.RunStores(ctx, cfg)
	}
	return demo.Run(ctx, cfg)
}
