// Package admin is the small HTTP server that operators and their tools look through: /metrics, /livez, /readyz, /status, and the commands of
// the process.
//
// What it shows comes from a *metrics.Set and from snapshot funcs that it is handed; each must be safe to call at any
// time and must not block. It listens on loopback unless told otherwise, and answers only requests whose Host is an IP address or
// localhost unless told otherwise, so that a web page cannot reach it through a name that it made point here.
//
// Only commands change anything. There are no users: who reaches the listener may give them, but for web pages, whose requests a browser on the same
// machine would carry (see command.go).
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Limits of the server. Every answer is small, and whoever asks is a scraper or a person on the same machine.
const (
	readHeaderTimeout = 2 * time.Second
	requestTimeout    = 10 * time.Second
	idleTimeout       = 60 * time.Second
	maxHeaderBytes    = 8 << 10
)

// Config of a Server.
type Config struct {
	// Metrics is written by /metrics, followed by the process's own; nil means only those.
	Metrics *metrics.Set
	// Ready says whether clients should be sent here: nil, or an error that names the reason. nil means always. It is about this
	// process only, never about a broker behind it: a broker that is away is what a sidecar is for.
	Ready func() error
	// Status is what /status shows: one member of the JSON object for each name.
	Status map[string]func() any
	// Commands are what may be done by POST, each under its name.
	Commands map[string]Command
	// AnyHost lets requests with any Host header in; for a listener that is meant to be reached by name.
	AnyHost bool
	Logger  *slog.Logger
}

// Server is a running admin listener. Shutdown must be called.
type Server struct {
	cfg      Config
	listener net.Listener
	http     *http.Server
	serving  sync.WaitGroup
}

// Serve starts answering on l, which becomes the Server's to close.
func Serve(l net.Listener, cfg Config) *Server {
	s := &Server{cfg: cfg, listener: l}
	s.http = &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: requestTimeout, WriteTimeout: requestTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	s.serving.Add(1)
	go s.serve()
	return s
}

func (s *Server) serve() {
	defer s.serving.Done()
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		s.cfg.Logger.Error("admin listener failed", "error", err)
	}
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Shutdown stops listening, waits for answers that are under way until ctx ends, then cuts them off. It returns when nothing of the
// Server runs any more.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		_ = s.http.Close()
	}
	s.serving.Wait()
	return err
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", s.ready)
	mux.HandleFunc("GET /status", s.status)
	for name, do := range s.cfg.Commands {
		mux.Handle("POST /"+name, s.command(name, do))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.cfg.AnyHost && !localHost(r.Host) {
			writeText(w, http.StatusForbidden, "this listener answers only to an IP address or localhost\n")
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// localHost reports whether a Host header could not have been made up by a page from elsewhere: a name can be pointed at 127.0.0.1 by
// whoever owns it, an address cannot.
func localHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "localhost" {
		return true
	}
	if n := len(host); n > 1 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	if s.cfg.Ready != nil {
		if err := s.cfg.Ready(); err != nil {
			writeText(w, http.StatusServiceUnavailable, "not ready: "+err.Error()+"\n")
			return
		}
	}
	writeText(w, http.StatusOK, "ok\n")
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	all := make(map[string]any, len(s.cfg.Status))
	for name, snapshot := range s.cfg.Status {
		all[name] = snapshot()
	}
	writeJSON(w, http.StatusOK, all)
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		writeText(w, http.StatusInternalServerError, "encode answer: "+err.Error()+"\n")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(text, '\n'))
}

func writeText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text))
}
