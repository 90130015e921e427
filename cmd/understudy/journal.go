package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/understudy-mq/understudy/broker"
	"github.com/understudy-mq/understudy/broker/journal"
	"github.com/understudy-mq/understudy/cmd/internal/ops"
)

const journalDescription = `Looks into the journal of a store, DIR being the one that its brokers have in --store. check and dump change nothing; they work on a copy, and
beside a broker that serves, of whose journal they then see a moment. Exit codes: 0 a broker would start; 3 the journal is damaged.`

const repairDescription = `Makes a broker start again on a damaged journal by giving up what cannot be read, and lists what that was. No broker may have the
store. What is unreadable is kept in DIR/quarantine. Before you do this: is there a backup, or a copy of the directory elsewhere? Run check first.`

func journalCommand() *cli.Command {
	asJSON := &cli.BoolFlag{Name: "json", Usage: "Print JSON."}
	command := func(name, usage, description string, action cli.ActionFunc, flags ...cli.Flag) *cli.Command {
		return &cli.Command{Name: name, Usage: usage, Description: description, ArgsUsage: "DIR", Flags: append(flags, asJSON), Action: action, OnUsageError: usageError}
	}
	return &cli.Command{
		Name: "journal", Usage: "check, show or repair the journal of a store", Description: journalDescription,
		Subcommands: []*cli.Command{
			command("check", "say whether a broker would start, and all that is damaged", "", checkJournal),
			command("dump", "show every record", "", dumpJournal, &cli.BoolFlag{Name: "bodies", Usage: "Show headers and bodies of messages, too: they may be secret."}),
			command("repair", "give up what is damaged", repairDescription, repairJournal,
				&cli.BoolFlag{Name: "accept-loss", Usage: "Accept that what cannot be read is given up for good."}), // not from the environment, where it would stay
		},
		Action: func(c *cli.Context) error {
			if name := c.Args().First(); name != "" {
				return &ops.UsageError{Hint: fmt.Sprintf("there is no command %q; see understudy journal --help", name)}
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}

// journalDir is the one argument.
func journalDir(c *cli.Context) (string, error) {
	name := c.Command.Name
	switch rest := c.Args().Slice(); {
	case len(rest) == 0 || rest[0] == "":
		return "", &ops.UsageError{Hint: fmt.Sprintf("say which directory: understudy journal %s DIR", name)}
	case len(rest) > 1 && strings.HasPrefix(rest[1], "-"):
		return "", &ops.UsageError{Hint: fmt.Sprintf("%s must come before the directory: understudy journal %s %s DIR", rest[1], name, rest[1])}
	case len(rest) > 1:
		return "", &ops.UsageError{Hint: fmt.Sprintf("%q is one directory too many; see understudy journal %s --help", rest[1], name)}
	default:
		return rest[0], nil
	}
}

// journalError tells a wrong directory from a bad journal.
func journalError(err error) error {
	if errors.Is(err, journal.ErrNoStore) {
		return &ops.UsageError{Hint: err.Error() + ": say the directory that a broker has in --store"}
	}
	return err
}

func readable(r journal.Record) error {
	if d := broker.Describe(r, false); d.Err != "" {
		return errors.New(d.Err)
	}
	return nil
}

func checkJournal(c *cli.Context) error {
	dir, err := journalDir(c)
	if err != nil {
		return err
	}
	p := newProgress(c.App.ErrWriter)
	report, err := journal.Check(dir, journal.CheckOptions{Verify: readable, Concerns: broker.Concerns, Progress: p.show})
	p.end()
	if err != nil {
		return journalError(err)
	}
	if err := tell(c, report, func(w io.Writer) { printReport(w, report) }); err != nil {
		return err
	}
	return report.Err()
}

// tell prints v as JSON, or in words.
func tell(c *cli.Context, v any, words func(io.Writer)) error {
	if !c.Bool("json") {
		words(c.App.Writer)
		return nil
	}
	e := json.NewEncoder(c.App.Writer)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func dumpJournal(c *cli.Context) error {
	dir, err := journalDir(c)
	if err != nil {
		return err
	}
	p := newProgress(c.App.ErrWriter)
	lines := json.NewEncoder(c.App.Writer)
	report, err := journal.Dump(dir, journal.CheckOptions{Concerns: broker.Concerns, Progress: p.show}, func(r journal.Record) error {
		d := broker.Describe(r, c.Bool("bodies"))
		if c.Bool("json") {
			return lines.Encode(d)
		}
		_, err := io.WriteString(c.App.Writer, recordLine(d))
		return err
	})
	p.end()
	if err != nil {
		return journalError(err)
	}
	return report.Err()
}

// repaired is what a repair says in JSON.
type repaired struct {
	*journal.Repaired
	Consequences []string `json:"consequences,omitempty"`
}

// consequences are what it means for messages that records were given up. Which of it applies, nobody can tell: the records are gone.
var consequences = []string{
	"Messages that these records brought are lost, unless they had been consumed.",
	"Messages that these records acknowledged come again, marked as redelivered.",
	"Transactions that these records committed are gone as a whole, with their messages and acknowledgements.",
	"Sessions of sidecars whose progress these records told may have sends stored twice; subscriptions that they began are made again by their clients, " +
		"durable ones are lost if no later segment repeats them.",
}

func repairJournal(c *cli.Context) error {
	dir, err := journalDir(c)
	if err != nil {
		return err
	}
	if !c.Bool("accept-loss") {
		return &ops.UsageError{Flag: "accept-loss", Hint: "must be given: a repair gives up for good what cannot be read; `understudy journal check` says what that is"}
	}
	log, err := ops.NewLogger(c.App.ErrWriter, "text", "warn")
	if err != nil {
		return err
	}
	p := newProgress(c.App.ErrWriter)
	done, err := journal.Repair(dir, journal.RepairOptions{
		AcceptLoss: true, Node: "understudy journal repair", Logger: log,
		CheckOptions: journal.CheckOptions{Concerns: broker.Concerns, Progress: p.show},
	})
	p.end()
	if err != nil {
		return journalError(err)
	}
	said := repaired{Repaired: done}
	if len(done.Given) > 0 {
		said.Consequences = consequences
	}
	return tell(c, said, func(w io.Writer) { printRepaired(w, dir, said) })
}

// progress shows how far a command is: all the time on a terminal, elsewhere only when it takes long.
type progress struct {
	w        io.Writer
	terminal bool
	next     time.Time
	shown    bool
}

const (
	progressEvery = 200 * time.Millisecond
	progressLong  = 5 * time.Second
)

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, next: time.Now().Add(progressLong)}
	if f, ok := w.(*os.File); ok {
		st, err := f.Stat()
		p.terminal = err == nil && st.Mode()&os.ModeCharDevice != 0
	}
	if p.terminal {
		p.next = time.Now().Add(progressEvery)
	}
	return p
}

func (p *progress) show(done, total int64) {
	now := time.Now()
	if now.Before(p.next) || total == 0 {
		return
	}
	p.next, p.shown = now.Add(progressEvery), true
	begin, end := "\r", ""
	if !p.terminal {
		p.next, begin, end = now.Add(progressLong), "", "\n"
	}
	fmt.Fprintf(p.w, "%s%3d %% of %s%s", begin, 100*done/total, octetText(total), end)
}

func (p *progress) end() {
	if p.shown && p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
