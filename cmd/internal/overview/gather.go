package overview

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Limits of asking.
const (
	askTimeout = 3 * time.Second // for one server
	maxAnswer  = 16 << 20        // octets of one answer
	maxServers = 64              // that are asked in all
	maxAtOnce  = 8
)

// Asker asks servers for their reports. Close must be called.
type Asker struct {
	// Follow lets it ask servers on other machines, too, whose addresses it has from other servers. Those on this machine it always asks.
	Follow bool

	client *http.Client
}

// NewAsker returns an Asker. It uses no proxy and follows no redirects: what it asks is nearby, and what it is told is where that is.
func NewAsker(follow bool) *Asker {
	return &Asker{Follow: follow, client: &http.Client{
		Transport:     &http.Transport{Proxy: nil, MaxIdleConnsPerHost: 1, ResponseHeaderTimeout: askTimeout},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close closes idle connections.
func (a *Asker) Close() { a.client.CloseIdleConnections() }

// errElsewhere is why a server was not asked.
var errElsewhere = errors.New("is on another machine and was not asked: name it by --admin, or say --follow")

// Gather asks the servers at urls, and those that brokers among them name as holders or candidates, until none is new. Answers are in the order in which their URLs
// became known.
func (a *Asker) Gather(ctx context.Context, urls []string) []Answer {
	known := map[string]bool{}
	var all []Answer
	given := len(urls)
	for next := urls; len(next) > 0; given = 0 {
		round := make([]Answer, 0, len(next))
		for i, u := range next {
			if known[u] || len(all)+len(round) >= maxServers {
				continue
			}
			known[u] = true
			answer := Answer{URL: u}
			if i >= given && !a.Follow && !nearby(u) {
				answer.Err = errElsewhere
			}
			round = append(round, answer)
		}
		a.askAll(ctx, round)
		all, next = append(all, round...), named(round)
	}
	return all
}

// askAll fills in what is not known yet, some at a time.
func (a *Asker) askAll(ctx context.Context, round []Answer) {
	var joined sync.WaitGroup
	free := make(chan struct{}, maxAtOnce)
	for i := range round {
		if round[i].Err != nil {
			continue
		}
		free <- struct{}{}
		joined.Go(func() {
			defer func() { <-free }()
			round[i].Report, round[i].Err = a.Ask(ctx, round[i].URL)
		})
	}
	joined.Wait()
}

// named are the admin listeners of all holders and candidates in those answers.
func named(round []Answer) (urls []string) {
	add := func(admin string) {
		if u, err := AdminURL(admin); err == nil {
			urls = append(urls, u)
		}
	}
	for _, answer := range round {
		if answer.Report == nil || answer.Report.Broker == nil {
			continue
		}
		for _, s := range answer.Report.Broker.Stores {
			if s.Owner != nil {
				add(s.Owner.Admin)
			}
			for _, c := range s.Candidates {
				add(c.Admin)
			}
		}
	}
	return urls
}

// Ask gets one server's report.
func (a *Asker) Ask(ctx context.Context, base string) (*Report, error) {
	report := new(Report)
	if err := a.do(ctx, http.MethodGet, base+"/status", askTimeout, report); err != nil {
		return nil, err
	}
	if report.Process.PID == 0 {
		return nil, errors.New("is not an admin listener of understudy: its /status names no process")
	}
	return report, nil
}

// Command gives a server a command, whose answer is decoded into to.
func (a *Asker) Command(ctx context.Context, base, name string, args url.Values, patience time.Duration, to any) error {
	return a.do(ctx, http.MethodPost, base+"/"+name+"?"+args.Encode(), patience, to)
}

func (a *Asker) do(ctx context.Context, method, where string, patience time.Duration, to any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, where, nil)
	if err != nil {
		return err
	}
	res, err := a.client.Do(req)
	if err != nil {
		return unreached(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("breaks off its answer: %w", unreached(err))
	case len(body) > maxAnswer:
		return fmt.Errorf("answers with more than %d octets", maxAnswer)
	case res.StatusCode != http.StatusOK:
		return &Refused{Code: res.StatusCode, Text: failureText(body)}
	}
	if err := json.Unmarshal(body, to); err != nil {
		return fmt.Errorf("answers what cannot be read: %w", err)
	}
	return nil
}

// Refused is an answer other than 200.
type Refused struct {
	Code int
	Text string
}

func (r *Refused) Error() string {
	if r.Text == "" {
		return fmt.Sprintf("answers %d %s", r.Code, http.StatusText(r.Code))
	}
	return r.Text
}

// failureText is what an answer gives as the reason.
func failureText(body []byte) string {
	var said struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &said) == nil && said.Error != "" {
		return said.Error
	}
	line, _, _ := strings.Cut(string(body), "\n")
	return clean(line, maxLine)
}

// unreached says in a few words why there was no answer.
func unreached(err error) error {
	var op *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("does not answer")
	case errors.As(err, &op):
		return fmt.Errorf("is not reached: %w", op.Err)
	}
	return err
}

// AdminURL reads what an operator or a server gives as the address of an admin listener: host:port, or a URL without a path.
func AdminURL(text string) (string, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return "", errors.New("must be host:port or http://host:port")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("must be host:port or http://host:port, without a path")
	}
	if _, port, err := net.SplitHostPort(u.Host); err != nil || port == "" {
		return "", errors.New("must name the port, as http://127.0.0.1:9613 does")
	}
	return u.Scheme + "://" + u.Host, nil
}

// nearby reports whether a URL leads to this machine for certain: a name may lead anywhere.
func nearby(text string) bool {
	u, err := url.Parse(text)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err == nil && ip.Unmap().IsLoopback()
}
