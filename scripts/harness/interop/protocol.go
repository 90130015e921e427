package interop

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Job is what a client program is told: one JSON object in the environment variable JOB. The program connects once, does its role and ends;
// it has no fail-over logic, and where its library has some, that is turned off or reported as an error.
//
// A producer says R, waits for a line on its standard input, and sends messages 1 to Count, each with a receipt, at Rate a second, with at most Window unconfirmed; when
// it was held up it makes up for it. A body is "run seq " and then x up to Size octets. A consumer subscribes with
// ack:client-individual, acknowledges the oldest message whenever it has more than Hold unacknowledged, and on SIGTERM acknowledges the rest,
// waits for the broker's word on that, and leaves.
type Job struct {
	Role        string            `json:"role"` // produce or consume
	Host        string            `json:"host"`
	Port        int               `json:"port"`
	Login       string            `json:"login"`
	Passcode    string            `json:"passcode"`
	Vhost       string            `json:"vhost"` // the host header of CONNECT; empty: whatever the library sends
	Destination string            `json:"destination"`
	Headers     map[string]string `json:"headers"` // for SEND or SUBSCRIBE; never nil
	Run         string            `json:"run"`
	Count       int               `json:"count"`
	Rate        float64           `json:"rate"` // messages a second
	Window      int               `json:"window"`
	Size        int               `json:"size"`
	Hold        int               `json:"hold"`
}

// Event is one line of a client's standard output:
//
//	R                      ready: connected and, for a consumer, subscribed
//	S seq                  a SEND is about to leave
//	C seq                  its receipt is there
//	M run seq size         a message was delivered
//	A seq                  its ACK was handed to the library
//	E {"message","headers"}  the client noticed something: an ERROR frame, a lost connection; it ends now
//	B                      it ended in good order
type Event struct {
	At    time.Time // when the line was read
	Kind  byte      // R, S, C, M, A, E or B
	Seq   int
	Run   string
	Size  int
	Error Complaint
}

// Complaint is what a client noticed. Headers are those of an ERROR frame, where the library shows them.
type Complaint struct {
	Message string            `json:"message"`
	Headers map[string]string `json:"headers,omitempty"`
}

// parseEvent reads one line.
func parseEvent(line string, at time.Time) (Event, error) {
	e := Event{At: at}
	if line == "" {
		return e, fmt.Errorf("a client said an empty line")
	}
	e.Kind = line[0]
	rest := strings.TrimPrefix(line[1:], " ")
	var err error
	switch e.Kind {
	case 'R', 'B':
		if rest != "" {
			err = fmt.Errorf("nothing may follow")
		}
	case 'S', 'C', 'A':
		err = numbers(rest, &e.Seq)
	case 'M':
		run, tail, _ := strings.Cut(rest, " ")
		e.Run = run
		err = numbers(tail, &e.Seq, &e.Size)
	case 'E':
		err = json.Unmarshal([]byte(rest), &e.Error)
	default:
		err = fmt.Errorf("unknown kind of line")
	}
	if err != nil {
		return e, fmt.Errorf("a client said %q: %w", line, err)
	}
	return e, nil
}

// numbers reads exactly as many decimal numbers as it is given places for.
func numbers(text string, into ...*int) error {
	fields := strings.Fields(text)
	if len(fields) != len(into) {
		return fmt.Errorf("want %d numbers, have %d", len(into), len(fields))
	}
	for i, f := range fields {
		n, err := strconv.Atoi(f)
		if err != nil {
			return err
		}
		*into[i] = n
	}
	return nil
}
