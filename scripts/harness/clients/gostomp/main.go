// Command gostomp is a producer or a consumer with go-stomp. What it is told and what it says: ../../interop/protocol.go.
//
// A Send with a receipt blocks in this library, and so does every other Send meanwhile: one is outstanding at most.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-stomp/stomp/v3"
	"github.com/go-stomp/stomp/v3/frame"

	"github.com/understudy-mq/understudy/scripts/harness/interop"
)

func main() {
	var job interop.Job
	if err := json.Unmarshal([]byte(os.Getenv("JOB")), &job); err != nil {
		fmt.Fprintln(os.Stderr, "gostomp: read JOB:", err)
		os.Exit(2)
	}
	if err := run(job); err != nil {
		fail(err)
	}
	say("B")
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) } // one write for each line

// failing is locked for good by the first failure: the others follow from it.
var failing sync.Mutex

// fail says what went wrong and ends: there is no fail-over logic here.
func fail(err error) {
	failing.Lock()
	c := interop.Complaint{Message: err.Error()}
	if e, ok := errors.AsType[*stomp.Error](err); ok {
		c.Headers = headers(e.Frame)
	} else if e, ok := errors.AsType[stomp.Error](err); ok {
		c.Headers = headers(e.Frame)
	}
	text, err := json.Marshal(c)
	if err != nil {
		text = []byte(`{"message":"an error that cannot be told"}`)
	}
	say("E %s", text)
	os.Exit(1)
}

func headers(f *frame.Frame) map[string]string {
	if f == nil || f.Header == nil {
		return nil
	}
	all := map[string]string{}
	for i := range f.Header.Len() {
		key, value := f.Header.GetAt(i)
		all[key] = value
	}
	return all
}

func run(job interop.Job) error {
	opts := []func(*stomp.Conn) error{stomp.ConnOpt.Logger(silent{})}
	if job.Login != "" {
		opts = append(opts, stomp.ConnOpt.Login(job.Login, job.Passcode))
	}
	if job.Vhost != "" {
		opts = append(opts, stomp.ConnOpt.Host(job.Vhost))
	}
	conn, err := stomp.Dial("tcp", net.JoinHostPort(job.Host, strconv.Itoa(job.Port)), opts...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	work := consume
	if job.Role == "produce" {
		work = produce
	}
	if err := work(conn, job); err != nil {
		return err
	}
	if err := conn.Disconnect(); err != nil {
		return fmt.Errorf("disconnect: %w", err)
	}
	return nil
}

func produce(conn *stomp.Conn, job interop.Job) error {
	opts := []func(*frame.Frame) error{stomp.SendOpt.Receipt}
	for key, value := range job.Headers {
		opts = append(opts, stomp.SendOpt.Header(key, value))
	}
	say("R")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	start := time.Now()
	for seq := 1; seq <= job.Count; seq++ {
		time.Sleep(time.Until(start.Add(time.Duration(float64(seq-1) / job.Rate * float64(time.Second)))))
		body := fmt.Sprintf("%s %d ", job.Run, seq)
		body += strings.Repeat("x", job.Size-len(body))
		say("S %d", seq)
		if err := conn.Send(job.Destination, "text/plain", []byte(body), opts...); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		say("C %d", seq)
	}
	return nil
}

func consume(conn *stomp.Conn, job interop.Job) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	var opts []func(*frame.Frame) error // no receipt: the library takes one for the end of the subscription
	for key, value := range job.Headers {
		opts = append(opts, stomp.SubscribeOpt.Header(key, value))
	}
	sub, err := conn.Subscribe(job.Destination, stomp.AckClientIndividual, opts...)
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	say("R")
	// Reading and acknowledging are apart: the library writes nothing while nobody takes what it read.
	messages := make(chan *stomp.Message, maxWaiting)
	go receive(sub, messages)
	var unacked []*stomp.Message
	for {
		select {
		case m := <-messages:
			unacked = append(unacked, m)
			if unacked, err = acknowledge(conn, unacked, job.Hold); err != nil {
				return err
			}
		case <-stop:
			// DISCONNECT follows with a receipt, which the broker gives when it has taken the ACKs before it.
			left.Store(true)
			_, err := acknowledge(conn, unacked, 0)
			return err
		}
	}
}

// maxWaiting is more than a broker has under way to one subscription at the rates of these tests.
const maxWaiting = 10_000

// left says that the end of the subscription is no error any more.
var left atomic.Bool

// receive says what comes and passes it on.
func receive(sub *stomp.Subscription, to chan<- *stomp.Message) {
	for m := range sub.C {
		if m.Err != nil {
			if !left.Load() {
				fail(fmt.Errorf("receive: %w", m.Err))
			}
			return
		}
		say("M %s %d", strings.Join(strings.SplitN(string(m.Body), " ", 3)[:2], " "), len(m.Body))
		to <- m
	}
	if !left.Load() {
		fail(errors.New("the subscription ended"))
	}
}

func acknowledge(conn *stomp.Conn, unacked []*stomp.Message, keep int) ([]*stomp.Message, error) {
	for len(unacked) > keep {
		m := unacked[0]
		unacked = unacked[1:]
		if err := conn.Ack(m); err != nil {
			return unacked, fmt.Errorf("acknowledge: %w", err)
		}
		say("A %s", strings.SplitN(string(m.Body), " ", 3)[1])
	}
	return unacked, nil
}

// silent keeps the library's log to itself: what matters comes back as an error.
type silent struct{}

func (silent) Debugf(string, ...any)   {}
func (silent) Infof(string, ...any)    {}
func (silent) Warningf(string, ...any) {}
func (silent) Errorf(string, ...any)   {}
func (silent) Debug(string)            {}
func (silent) Info(string)             {}
func (silent) Warning(string)          {}
func (silent) Error(string)            {}
