package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/understudy-mq/understudy/cmd/internal/ops"
	"github.com/understudy-mq/understudy/cmd/internal/overview"
)

const statusDescription = `Asks brokers and sidecars what they show on /status, and makes one picture of it: of every store who serves it, who would take it over and in
which order, and what is wrong. One broker is enough: it names the others that stand for its stores. Those on other machines are asked if --admin names them, or with
--follow. Exit code 1: a store is in nobody's hands, or nobody answers.`

// adminDefault is where the samples have it.
const adminDefault = "http://127.0.0.1:9613"

// errUnheld ends a status that shows it already.
var errUnheld = errors.New("a store is in nobody's hands")

func adminFlags() []cli.Flag {
	return []cli.Flag{
		texts("admin", "host:port or URL of the admin listener of a broker or a sidecar; repeatable, "+adminDefault+" unless given."),
		yes("follow", false, "Ask servers on other machines, too, whose addresses come from those that were asked."),
		&cli.BoolFlag{Name: "json", Usage: "Print JSON.", EnvVars: env("json")},
	}
}

func statusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "show who serves which store, and who would take it over", Description: statusDescription,
		Flags:  append(adminFlags(), duration("watch", 0, "Show it again and again, with this much time between, until told to end; 0 means once.")),
		Action: runStatus,
	}
}

// admins are the admin listeners that are named.
func (v *values) admins() (urls []string) {
	given := v.c.StringSlice("admin")
	if len(given) == 0 {
		given = []string{adminDefault}
	}
	for _, text := range given {
		u, err := overview.AdminURL(text)
		if err != nil {
			v.fail("admin", "", err.Error()) // not shown: there may be a password in it
		}
		urls = append(urls, u)
	}
	return urls
}

func runStatus(c *cli.Context) error {
	v := &values{c: c}
	urls, every := v.admins(), v.notNegative("watch")
	if v.err != nil {
		return v.err
	}
	asker := overview.NewAsker(c.Bool("follow"))
	defer asker.Close()
	if every == 0 {
		view, err := showStatus(c.Context, c, asker, urls)
		if err == nil && !view.Held() {
			err = errUnheld
		}
		return err
	}
	orderly, _, stop := ops.Signals(c.Context)
	defer stop()
	for {
		if _, err := showStatus(orderly, c, asker, urls); err != nil || orderly.Err() != nil {
			return err
		}
		select {
		case <-orderly.Done():
			return nil
		case <-time.After(every):
		}
		if !c.Bool("json") {
			fmt.Fprintln(c.App.Writer)
		}
	}
}

// showStatus asks once and prints.
func showStatus(ctx context.Context, c *cli.Context, asker *overview.Asker, urls []string) (overview.View, error) {
	view := overview.Merge(asker.Gather(ctx, urls))
	if ctx.Err() != nil { // who was not waited for is not silent
		return view, nil
	}
	var failed error
	err := tell(c, view, func(w io.Writer) { failed = overview.Print(w, view, time.Now()) })
	return view, errors.Join(err, failed)
}
