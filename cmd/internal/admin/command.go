package admin

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"
)

// commandTimeout bounds a command, and commandGrace what it takes to say how it ended.
const (
	commandTimeout = 30 * time.Second
	commandGrace   = 2 * time.Second
)

// Command does something for an operator. Its arguments are the query of the request, what it returns is answered as JSON. ctx ends with the request, and
// after half a minute. An error is answered with the code of the Refusal that it is or wraps, else with 500, and its text under "error".
type Command func(ctx context.Context, args url.Values) (any, error)

// Refusal is an error whose reason is the request or the moment, not a failure.
type Refusal struct {
	Code int // of HTTP, 4xx
	Err  error
}

func (r *Refusal) Error() string { return r.Err.Error() }
func (r *Refusal) Unwrap() error { return r.Err }

// failure is the answer to a command that did not work.
type failure struct {
	Error string `json:"error"`
}

// command answers POST for one command.
//
// A browser carries requests of any web page to this machine, and the page need not see the answer to have had its way. Browsers say where such a request comes
// from, and what comes from elsewhere is refused. Under a name that its owner made point here a page comes from here, as far as a browser can see;
// so a browser must have used an address, even where other programs may use names.
func (s *Server) command(name string, do Command) http.Handler {
	return http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if browser := r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != ""; browser && !localHost(r.Host) {
			writeJSON(w, http.StatusForbidden, failure{"a browser may give commands only to an IP address or localhost"})
			return
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(commandTimeout + commandGrace))
		ctx, cancel := context.WithTimeout(r.Context(), commandTimeout)
		defer cancel()
		began := time.Now()
		done, err := do(ctx, r.URL.Query())
		s.cfg.Logger.Info("command", "name", name, "args", r.URL.RawQuery, "from", r.RemoteAddr, "took", time.Since(began).Round(time.Microsecond).String(), "error", err)
		var refused *Refusal
		switch {
		case err == nil:
			writeJSON(w, http.StatusOK, done)
		case errors.As(err, &refused):
			writeJSON(w, refused.Code, failure{err.Error()})
		default:
			writeJSON(w, http.StatusInternalServerError, failure{err.Error()})
		}
	}))
}
