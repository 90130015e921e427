package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/understudy-mq/understudy/broker"
	"github.com/understudy-mq/understudy/cmd/internal/admin"
	"github.com/understudy-mq/understudy/cmd/internal/ops"
	"github.com/understudy-mq/understudy/cmd/internal/overview"
)

const handoverDescription = `Hands STORE, a name or a UUID, from the server that serves it to another one that stands for it: the first of the rank list that ` + "`understudy status`" + `
shows that has all of the log, or the one that --to names. What was received is synced and answered first; clients of sidecars do not notice, direct ones are told to connect again. --admin may name any server
that stands for the store. A store that its owner handed over goes back to it by itself unless the holder runs with --failback manual.`

// Limits of a hand-over.
const (
	handoverPatience = 35 * time.Second // of who asked for it; longer than the admin listener lets it take
	takenPatience    = 10 * time.Second // for another server to have the store
	takenPoll        = 2 * time.Millisecond
)

// handedOver is what a hand-over came to.
type handedOver struct {
	Store string `json:"store"`
	UUID  string `json:"uuid"`
	From  string `json:"from"`
	To    string `json:"to"`    // who has it now
	Epoch uint64 `json:"epoch"` // its epoch
	// Both from the command on; the wait for the other's copy of the log is in it, during which the store is served as ever.
	ReleasedMS float64 `json:"released_ms"`
	TakenMS    float64 `json:"taken_ms"`
}

// hander is a server that can hand over.
type hander interface {
	HandOver(ctx context.Context, store, to string) error
	Status() broker.Status
}

// handOver is the command of the admin listener.
func handOver(server hander) admin.Command {
	return func(ctx context.Context, args url.Values) (any, error) {
		name, to := args.Get("store"), args.Get("to")
		if name == "" {
			return nil, &admin.Refusal{Code: http.StatusBadRequest, Err: errors.New("say which store: ?store=NAME, and &to=SERVER if it is not to be the first candidate")}
		}
		before := server.Status()
		share, known := shareIn(before, name)
		began := time.Now()
		if err := server.HandOver(ctx, name, to); err != nil {
			return nil, handoverError(err)
		}
		if !known { // it came in between
			share, _ = shareIn(server.Status(), name)
		}
		done := handedOver{Store: share.Name, UUID: share.UUID, From: before.Node, ReleasedMS: millis(time.Since(began))}
		ctx, cancel := context.WithTimeout(ctx, takenPatience)
		defer cancel()
		for {
			if now, ok := shareIn(server.Status(), share.UUID); ok && taken(now, share.Epoch, before.Node, &done) {
				done.TakenMS = millis(time.Since(began))
				return done, nil
			}
			select {
			case <-ctx.Done():
				return nil, fmt.Errorf("store %s was released by %s after %.0f ms, and nobody has taken it since: see understudy status", share.Name, before.Node, done.ReleasedMS)
			case <-time.After(takenPoll):
			}
		}
	}
}

// taken reports whether somebody has the store at a higher epoch, and who.
func taken(s broker.StoreStatus, epoch uint64, self string, done *handedOver) bool {
	switch {
	case s.Role == broker.Active && s.Epoch > epoch: // it came back to us: nobody else was there in time
		done.To, done.Epoch = self, s.Epoch
	case s.Role == broker.Standby && s.Owner.Epoch > epoch:
		done.To, done.Epoch = s.Owner.Node, s.Owner.Epoch
	default:
		return false
	}
	return true
}

func shareIn(s broker.Status, store string) (broker.StoreStatus, bool) {
	i := slices.IndexFunc(s.Stores, func(one broker.StoreStatus) bool {
		return one.Name == store || one.UUID != "" && strings.EqualFold(one.UUID, store)
	})
	if i < 0 {
		return broker.StoreStatus{}, false
	}
	return s.Stores[i], true
}

// handoverError tells what the operator asked wrongly from what failed.
func handoverError(err error) error {
	switch {
	case errors.Is(err, broker.ErrNoStore):
		return &admin.Refusal{Code: http.StatusNotFound, Err: err}
	case errors.Is(err, broker.ErrNotHeld), errors.Is(err, broker.ErrNoCandidate), errors.Is(err, broker.ErrMoving):
		return &admin.Refusal{Code: http.StatusConflict, Err: err}
	}
	return err
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

func handoverCommand() *cli.Command {
	to := &cli.StringFlag{Name: "to", Usage: "Server that is to have the store, by its --name; the first candidate unless given."} // not from the environment, where it would stay
	return &cli.Command{
		Name: "handover", Usage: "hand a store to another server", Description: handoverDescription, ArgsUsage: "STORE [--to SERVER] [--admin URL]",
		Flags: append(adminFlags(), to), Action: runHandover, OnUsageError: usageError,
	}
}

func runHandover(c *cli.Context) error {
	store, err := oneArgument(c, "STORE")
	if err != nil {
		return err
	}
	v := &values{c: c}
	urls := v.admins()
	if v.err != nil {
		return v.err
	}
	asker := overview.NewAsker(c.Bool("follow"))
	defer asker.Close()
	holder, err := findHolder(overview.Merge(asker.Gather(c.Context, urls)), store)
	if err != nil {
		return err
	}
	args := url.Values{"store": {cmp.Or(holder.UUID, holder.Name)}}
	to := c.String("to")
	if to == holder.Holder {
		done := handedOver{Store: holder.Name, UUID: holder.UUID, From: to, To: to, Epoch: holder.Epoch}
		return tell(c, done, func(w io.Writer) {
			fmt.Fprintf(w, "%s: %s has it already, at epoch %d\n", done.Store, done.To, done.Epoch)
		})
	}
	if to != "" {
		args.Set("to", to)
	}
	var done handedOver
	if err := asker.Command(c.Context, holder.Admin, "handover", args, handoverPatience, &done); err != nil {
		return fmt.Errorf("%s: %w", holder.Holder, err)
	}
	return tell(c, done, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s has let it go after %.1f ms, %s has it after %.1f ms, at epoch %d\n", done.Store, done.From, done.ReleasedMS, done.To, done.TakenMS, done.Epoch)
	})
}

// findHolder is the store in a picture, if somebody holds it who can be told to hand it over.
func findHolder(view overview.View, store string) (*overview.StoreView, error) {
	s, ambiguous := view.Store(store)
	switch {
	case ambiguous:
		return nil, &ops.UsageError{Hint: fmt.Sprintf("several stores are named %s: give the UUID, as understudy status --json shows it", store)}
	case len(view.Servers) == 0 && len(view.Silent) > 0:
		return nil, ops.Hint(fmt.Errorf("%s %s", view.Silent[0].URL, view.Silent[0].Why), "see --admin")
	case s == nil:
		var known []string
		for _, one := range view.Stores {
			known = append(known, one.Name)
		}
		return nil, fmt.Errorf("no server that was asked knows a store %q; they know: %s", store, strings.Join(known, ", "))
	case s.Holder == "":
		return nil, fmt.Errorf("nobody serves store %s: there is nothing to hand over", s.Name)
	case s.Admin == "":
		return nil, ops.Hint(fmt.Errorf("store %s is served by %s, whose admin listener was not asked", s.Name, s.Holder), "name it by --admin, or say --follow")
	}
	return s, nil
}

// oneArgument is the one argument of a command; flags may stand behind it, where the flag parser does not look.
func oneArgument(c *cli.Context, what string) (string, error) {
	command, rest := c.Command.HelpName, c.Args().Slice()
	if len(rest) == 0 || rest[0] == "" {
		return "", &ops.UsageError{Hint: fmt.Sprintf("say which: %s %s", command, what)}
	}
	for i := 1; i < len(rest); i++ {
		name, value, given := strings.Cut(strings.TrimLeft(rest[i], "-"), "=")
		if rest[i][:min(1, len(rest[i]))] != "-" {
			return "", &ops.UsageError{Hint: fmt.Sprintf("%q is one too many; see %s --help", rest[i], command)}
		}
		at := slices.IndexFunc(c.Command.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
		if at < 0 {
			return "", &ops.UsageError{Hint: fmt.Sprintf("there is no flag %s; see %s --help", rest[i], command)}
		}
		if _, plain := c.Command.Flags[at].(*cli.BoolFlag); plain && !given {
			value, given = "true", true
		}
		if !given {
			if i++; i == len(rest) {
				return "", &ops.UsageError{Flag: name, Hint: "needs a value"}
			}
			value = rest[i]
		}
		if err := c.Set(name, value); err != nil {
			return "", &ops.UsageError{Flag: name, Value: value, Hint: err.Error()}
		}
	}
	return rest[0], nil
}
