package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

func start(t *testing.T, cfg Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	s := Serve(l, cfg)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		http.DefaultClient.CloseIdleConnections()
		if err := s.Shutdown(ctx); err != nil {
			t.Error("shutdown:", err)
		}
	})
	return s.Addr().String()
}

func get(t *testing.T, method, addr, path, host string) (int, string, http.Header) {
	t.Helper()
	return ask(t, method, addr, path, host)
}

// ask makes a request with further headers, name by value.
func ask(t *testing.T, method, addr, path, host string, header ...string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body), res.Header
}

func TestEndpoints(t *testing.T) {
	set := metrics.NewSet()
	set.NewCounter("understudy_things_total").Add(7)
	var draining atomic.Bool
	addr := start(t, Config{
		Metrics: set,
		Ready: func() error {
			if draining.Load() {
				return errors.New("draining")
			}
			return nil
		},
		Status: map[string]func() any{"sidecar": func() any { return map[string]int{"sessions": 3} }},
	})
	for _, c := range []struct {
		name, method, path, host string
		drain                    bool
		code                     int
		contains                 string
	}{
		{"metrics", "GET", "/metrics", "", false, 200, "understudy_things_total 7\n"},
		{"process metrics", "GET", "/metrics", "", false, 200, "process_resident_memory_bytes "},
		{"alive", "GET", "/livez", "", false, 200, "ok"},
		{"ready", "GET", "/readyz", "", false, 200, "ok"},
		{"alive while draining", "GET", "/livez", "", true, 200, "ok"},
		{"not ready while draining", "GET", "/readyz", "", true, 503, "not ready: draining"},
		{"status", "GET", "/status", "", false, 200, `"sessions": 3`},
		{"nothing else", "GET", "/", "", false, 404, ""},
		{"reads only", "POST", "/status", "", false, 405, ""},
		{"localhost", "GET", "/livez", "localhost:8080", false, 200, "ok"},
		{"IPv6 literal", "GET", "/livez", "[::1]:8080", false, 200, "ok"},
		{"a rebound name", "GET", "/status", "evil.example", false, 403, ""},
		{"a rebound name with a port", "GET", "/status", "evil.example:80", false, 403, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			draining.Store(c.drain)
			code, body, _ := get(t, c.method, addr, c.path, c.host)
			if code != c.code || !strings.Contains(body, c.contains) {
				t.Errorf("%s %s: %d %q, want %d with %q", c.method, c.path, code, body, c.code, c.contains)
			}
		})
	}
}

func TestStatusIsJSON(t *testing.T) {
	addr := start(t, Config{Status: map[string]func() any{"a": func() any { return 1 }, "b": func() any { return []string{"x"} }}})
	_, body, header := get(t, "GET", addr, "/status", "")
	var got struct {
		A int
		B []string
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || got.A != 1 || len(got.B) != 1 {
		t.Fatalf("%q: %v", body, err)
	}
	if ct := header.Get("Content-Type"); ct != "application/json" {
		t.Error("content type", ct)
	}
}

func TestAnyHost(t *testing.T) {
	addr := start(t, Config{AnyHost: true})
	if code, _, _ := get(t, "GET", addr, "/livez", "metrics.example"); code != 200 {
		t.Error("a listener that is meant to be reached by name refused one:", code)
	}
}

// A client that never finishes its header must not hold a connection for ever, nor Shutdown.
func TestSlowHeaderIsCutOff(t *testing.T) {
	addr := start(t, Config{})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /livez HTTP/1.1\r\n"); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(readHeaderTimeout + 5*time.Second))
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Error("the connection was kept:", err)
	}
}
