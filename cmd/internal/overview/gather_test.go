package overview

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// serve answers /status with what the report func says at that moment.
func serve(t *testing.T, report func() any) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/status" || r.Method != http.MethodGet {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(report())
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func asker(t *testing.T, follow bool) *Asker {
	a := NewAsker(follow)
	t.Cleanup(a.Close)
	return a
}

// One address is enough: the others are named by those that are asked, each is asked once, those elsewhere are not.
func TestGatherFollowsHoldersAndCandidates(t *testing.T) {
	var second, third string
	asked := make(chan string, 100)
	broker := func(node string, candidates func() []Candidate) string {
		return serve(t, func() any {
			asked <- node
			return Report{Process: Process{Name: node, PID: 1}, Broker: &Broker{Node: node, Stores: []Store{{Name: "a", Role: "active", Candidates: candidates()}}}}
		})
	}
	third = broker("third", func() []Candidate { return []Candidate{{Admin: second}, {Admin: ""}, {Admin: "file:///etc/passwd"}} })
	second = broker("second", func() []Candidate {
		return []Candidate{{Admin: third}, {Admin: "http://192.0.2.1:9613"}, {Admin: "http://localhost.example:9613"}}
	})
	first := serve(t, func() any {
		asked <- "first"
		return Report{Process: Process{Name: "first", PID: 1}, Broker: &Broker{Node: "first", Stores: []Store{{Name: "a", Role: "standby", Owner: &Holder{Node: "second", Admin: second}}}}}
	})
	answers := asker(t, false).Gather(t.Context(), []string{first, first})
	var got []string
	for _, a := range answers {
		switch {
		case a.Err == nil:
			got = append(got, a.Report.Process.Name)
		case errors.Is(a.Err, errElsewhere):
			got = append(got, a.URL)
		default:
			t.Error(a.URL, a.Err)
		}
	}
	want := []string{"first", "second", "third", "http://192.0.2.1:9613", "http://localhost.example:9613"}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) || len(asked) != 3 {
		t.Errorf("%v, %d requests; want %v", got, len(asked), want)
	}
}

// However many servers there are to ask, there is a limit.
func TestGatherIsBounded(t *testing.T) {
	base := serve(t, func() any { return Report{Process: Process{Name: "n", PID: 1}} })
	var many []string
	for i := range 2 * maxServers {
		many = append(many, base+"/"+strings.Repeat("x", i))
	}
	if answers := asker(t, false).Gather(t.Context(), many); len(answers) != maxServers {
		t.Errorf("%d servers, want %d", len(answers), maxServers)
	}
}

func TestBadAnswers(t *testing.T) {
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"refuses", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "this listener answers only to an IP address or localhost", http.StatusForbidden)
		}, "only to an IP address"},
		{"refuses without a word", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }, "418"},
		{"refuses in JSON", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, `{"error":"it is held"}`)
		}, "it is held"},
		{"sends elsewhere", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/status", http.StatusFound)
		}, "Found"},
		{"is something else", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"version": 3}`) }, "not an admin listener of understudy"},
		{"is no JSON", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `<html>`) }, "cannot be read"},
		{"does not end", func(w http.ResponseWriter, _ *http.Request) {
			for line := strings.Repeat(" ", 1<<20); ; {
				if _, err := io.WriteString(w, line); err != nil {
					return
				}
			}
		}, "more than 16777216 octets"},
		{"breaks off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "{")
		}, "breaks off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := httptest.NewServer(c.handler)
			defer s.Close()
			if _, err := asker(t, false).Ask(t.Context(), s.URL); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	if _, err := asker(t, false).Ask(t.Context(), "http://127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "is not reached: ") {
		t.Error(err)
	}
}

func TestSilentServerIsNotWaitedFor(t *testing.T) {
	block := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-block }))
	defer s.Close()
	defer close(block)
	err := asker(t, false).Command(t.Context(), s.URL, "handover", url.Values{"store": {"a"}}, 20*time.Millisecond, new(any))
	if err == nil || err.Error() != "does not answer" {
		t.Error(err)
	}
}

func TestCommandSaysWhatWasDone(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"got": r.Method + " " + r.URL.String()})
	}))
	defer s.Close()
	var done struct{ Got string }
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := asker(t, false).Command(ctx, s.URL, "handover", url.Values{"store": {"a b"}}, time.Second, &done); err != nil || done.Got != "POST /handover?store=a+b" {
		t.Errorf("%q %v", done.Got, err)
	}
}

func TestAdminURL(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1:9613": "http://127.0.0.1:9613", "http://mq1.example:9613/": "http://mq1.example:9613", "https://mq1.example:443": "https://mq1.example:443", "[::1]:9613": "http://[::1]:9613",
		"": "", "mq1.example": "", "http://mq1.example": "", "file:///etc/passwd": "", "http://user:secret@a:1": "", "http://a:1/status": "", "http://a:1?x=y": "", "gopher://a:1": "", "http://a:b": "",
	} {
		if got, err := AdminURL(in); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q %v, want %q", in, got, err, want)
		}
	}
}
