// Command understudy keeps unmodified messaging clients talking while their broker is killed. It is a sidecar that remembers each
// client's conversation and plays it to the next broker, a small broker whose promises that makes exact, and a demo of the two.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/cmd/internal/ops"
)

// Exit codes, as the help documents them.
const (
	exitOK      = 0
	exitFailed  = 1
	exitUsage   = 2
	exitDamaged = 3
)

const description = `Exit codes: 0 all is well; 1 it failed while running, as a broker does whose disk fails or whose store another took over, the demo's verdict is bad, or a store is in nobody's hands;
2 the command line cannot work; 3 the journal is damaged, and nothing was changed. Each flag can be given by the environment variable named beside it.`

func main() { os.Exit(run(context.Background(), os.Args, os.Stdout, os.Stderr)) }

// errVerdict ends a demo whose outcome is bad and was told already.
var errVerdict = errors.New("the demo's verdict is bad")

// run is the whole program but for the exit.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := newApp(stdout, stderr).RunContext(ctx, args)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errVerdict), errors.Is(err, errUnheld):
		return exitFailed
	}
	fmt.Fprintf(stderr, "understudy: %s\n", oneLine(err.Error()))
	switch {
	case ops.IsUsage(err):
		return exitUsage
	case errors.Is(err, journal.ErrDamaged), errors.Is(err, journal.ErrIrreparable):
		return exitDamaged
	}
	return exitFailed
}

// oneLine keeps an error that was joined from several on one line.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' }), "; ")
}

func newApp(stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name: "understudy", Usage: "keep messaging clients talking while their broker dies", Description: description,
		Version: version(), HideVersion: true, Writer: stdout, ErrWriter: stderr,
		OnUsageError:   usageError,
		ExitErrHandler: func(*cli.Context, error) {}, // run decides, only main exits
		Commands:       []*cli.Command{sidecarCommand(), brokerCommand(), statusCommand(), journalCommand(), demoCommand(), versionCommand()},
		Action: func(c *cli.Context) error {
			if name := c.Args().First(); name != "" {
				return &ops.UsageError{Hint: fmt.Sprintf("there is no command %q; see understudy --help", name)}
			}
			return cli.ShowAppHelp(c)
		},
	}
	for _, c := range app.Commands {
		if c.OnUsageError = usageError; c.Subcommands == nil {
			c.Before = noArguments
		}
	}
	return app
}

// usageError words what the flag parser found.
func usageError(c *cli.Context, err error, _ bool) error {
	command := "understudy"
	switch {
	case c.Command == nil || c.Command.Name == "" || c.Command.Name == command:
	case c.Command.HelpName != "":
		command = c.Command.HelpName
	default:
		command += " " + c.Command.Name
	}
	return &ops.UsageError{Hint: fmt.Sprintf("%v; see %s --help", err, command)}
}

func noArguments(c *cli.Context) error {
	if c.NArg() > 0 {
		return &ops.UsageError{Hint: fmt.Sprintf("%q is not a flag; see understudy %s --help", c.Args().First(), c.Command.Name)}
	}
	return nil
}

// version is the module's version, or the revision that it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}

func versionCommand() *cli.Command {
	return &cli.Command{Name: "version", Usage: "print the version", Action: func(c *cli.Context) error {
		_, err := fmt.Fprintln(c.App.Writer, "understudy", version())
		return err
	}}
}
