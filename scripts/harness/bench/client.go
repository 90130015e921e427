package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	window      = 1000             // SENDs without RECEIPT, or MESSAGEs without ACK, of one connection, unless its load says otherwise
	readBuffer  = 64 << 10         // octets
	patience    = 60 * time.Second // beyond the time that a load is meant to take, before it counts as hung
	connectWait = 60 * time.Second // a crowd on a busy machine is let in slowly
)

// body is what every message carries: no run of one octet, and no NUL.
var body = func() []byte {
	b := make([]byte, bodyBytes)
	for i := range b {
		b[i] = 'a' + byte(i*7%26)
	}
	return b
}()

// client is one STOMP connection.
type client struct {
	conn net.Conn
	br   *bufio.Reader
	f    stompFrame
	out  []byte // reused for what is written

	perWrite int    // frames in one write at most
	window   int    // SENDs without RECEIPT
	sends    string // header lines that each SEND has beside the usual ones

	timed bool            // pipeline notes how long each receipt took
	took  []time.Duration // from before the SEND was written
}

// door is where a broker is entered, and how.
type door struct{ addr, host, login, passcode string }

// connect logs in at addr with the version that most libraries ask for.
func connect(ctx context.Context, addr string, buffer int) (*client, error) {
	return door{addr: addr, host: "bench"}.connect(ctx, buffer)
}

func (d door) connect(ctx context.Context, buffer int) (*client, error) {
	ctx, cancel := context.WithTimeout(ctx, connectWait)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", d.addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	c := &client{conn: conn, br: bufio.NewReaderSize(conn, buffer), perWrite: 1, window: window}
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	login := ""
	if d.login != "" {
		login = "login:" + d.login + "\npasscode:" + d.passcode + "\n"
	}
	err = c.write("CONNECT\naccept-version:1.2\nhost:" + d.host + "\n" + login + "heart-beat:0,0\n\n\x00")
	if err == nil {
		err = c.expect("CONNECTED")
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("log in at %s: %w", d.addr, err)
	}
	return c, conn.SetDeadline(time.Time{})
}

func (c *client) close() { _ = c.conn.Close() }

func (c *client) write(text string) error {
	_, err := c.conn.Write([]byte(text))
	return err
}

// expect reads a frame that must be a given one.
func (c *client) expect(command string) error {
	if err := c.f.next(c.br); err != nil {
		return fmt.Errorf("wait for %s: %w", command, err)
	}
	if string(c.f.command) != command {
		return fmt.Errorf("%s came instead of %s: %s", c.f.command, command, c.f.value[hMessage])
	}
	return nil
}

// receipt reads the RECEIPT number n.
func (c *client) receipt(n int) error {
	if err := c.expect("RECEIPT"); err != nil {
		return err
	}
	if got := c.f.number(hReceiptID); got != uint64(n) {
		return fmt.Errorf("RECEIPT %s came instead of %d: one is missing, or twice there", c.f.value[hReceiptID], n)
	}
	return nil
}

// appendSend adds a SEND with receipt n, and with header lines more, each with its end.
func appendSend(b []byte, destination, more string, n int) []byte {
	b = append(b, "SEND\ndestination:"...)
	b = append(b, destination...)
	b = append(b, '\n')
	b = append(b, more...)
	b = append(b, "content-type:text/plain\nreceipt:"...)
	b = strconv.AppendInt(b, int64(n), 10)
	b = append(b, "\ncontent-length:"...)
	b = strconv.AppendInt(b, bodyBytes, 10)
	b = append(b, "\n\n"...)
	b = append(b, body...)
	return append(b, 0)
}

// credit is the window between the writer and the reader of one connection.
type credit struct {
	mu                 sync.Mutex
	changed            *sync.Cond
	window             int
	sent, confirmed    int
	finished, readerIs bool // nothing more is sent; the reader has ended
}

func newCredit(window int) *credit {
	c := &credit{window: window}
	c.changed = sync.NewCond(&c.mu)
	return c
}

// take waits for room in the window, and takes no more of it than most; 0 means that the reader has ended.
func (c *credit) take(most int) (first, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.sent-c.confirmed >= c.window && !c.readerIs {
		c.changed.Wait()
	}
	if c.readerIs {
		return 0, 0
	}
	n = min(most, c.window-(c.sent-c.confirmed))
	first = c.sent
	c.sent += n
	return first, n
}

func (c *credit) confirm(n int) (done bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.confirmed += n
	c.changed.Signal()
	return c.finished && c.confirmed == c.sent
}

// finish says that no more is sent; it reports whether all is confirmed already.
func (c *credit) finish() (done bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finished = true
	return c.confirmed == c.sent
}

func (c *credit) readerEnded() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readerIs = true
	c.changed.Signal()
}

// stamps are when the SENDs of a window were written, by number. The writer overwrites one only after its receipt was counted.
type stamps struct {
	start time.Time
	at    []atomic.Int64 // nanoseconds since start
}

func newStamps(window int) *stamps { return &stamps{time.Now(), make([]atomic.Int64, window)} }

func (s *stamps) put(n int) { s.at[n%len(s.at)].Store(int64(time.Since(s.start))) }

func (s *stamps) since(n int) time.Duration {
	return time.Since(s.start) - time.Duration(s.at[n%len(s.at)].Load())
}

// pipeline sends for d, but no more than most, each SEND with a receipt and at most c.window of them unconfirmed, and waits for the last receipt. It
// returns how many there were.
func (c *client) pipeline(destination string, d time.Duration, most int) (int, error) {
	_ = c.conn.SetDeadline(time.Now().Add(d + patience))
	cr, st := newCredit(c.window), newStamps(c.window)
	readErr := make(chan error, 1)
	go func() {
		err := c.receipts(cr, st)
		cr.readerEnded()
		readErr <- err
	}()
	var err error
	for end, sent := time.Now().Add(d), 0; err == nil && sent < most && time.Now().Before(end); {
		first, n := cr.take(min(c.perWrite, most-sent))
		if n == 0 {
			break
		}
		sent += n
		c.out = c.out[:0]
		for i := range n {
			c.out = appendSend(c.out, destination, c.sends, first+i)
			if c.timed {
				st.put(first + i)
			}
		}
		_, err = c.conn.Write(c.out)
	}
	if err != nil || cr.finish() {
		_ = c.conn.SetReadDeadline(time.Unix(1, 0)) // the reader may be waiting for nothing
	}
	e := <-readErr
	if err != nil {
		return 0, fmt.Errorf("send: %w", err)
	}
	if cr.confirmed != cr.sent {
		return 0, fmt.Errorf("confirmed %d of %d SENDs: %w", cr.confirmed, cr.sent, e)
	}
	return cr.sent, nil
}

// receipts counts RECEIPTs, which must come in order, until the last one of all was there or the connection fails.
func (c *client) receipts(cr *credit, st *stamps) error {
	next, told := 0, 0
	for {
		if drained(c.br) && next > told {
			n := next - told
			told = next
			if cr.confirm(n) {
				return nil
			}
		}
		if err := c.receipt(next); err != nil {
			if next > told {
				cr.confirm(next - told)
			}
			return err
		}
		if c.timed {
			c.took = append(c.took, st.since(next))
		}
		next++
	}
}

// consume subscribes and acknowledges each message by itself: count of them, or as many as there are in d if count is 0. It ends when the last ACK
// was confirmed.
func (c *client) consume(destination string, count int, d time.Duration) (int, error) {
	_ = c.conn.SetDeadline(time.Now().Add(d + patience))
	err := c.write("SUBSCRIBE\nid:1\ndestination:" + destination + "\nack:client-individual\nactivemq.prefetchSize:" + strconv.Itoa(window) +
		"\nprefetch-count:" + strconv.Itoa(window) + "\n\n\x00")
	if err != nil {
		return 0, fmt.Errorf("subscribe: %w", err)
	}
	end, got, waiting := time.Now().Add(d), 0, 0
	c.out = c.out[:0]
	for last := false; !last; {
		if err := c.expect("MESSAGE"); err != nil {
			return got, fmt.Errorf("after %d messages: %w", got, err)
		}
		if c.f.body != bodyBytes {
			return got, fmt.Errorf("message %d has %d octets instead of %d", got, c.f.body, bodyBytes)
		}
		got++
		last = got == count
		idle := drained(c.br)
		if idle && count == 0 && time.Now().After(end) {
			last = true
		}
		c.out = append(c.out, "ACK\nid:"...)
		c.out = append(c.out, c.f.value[hAck]...)
		if last {
			c.out = append(c.out, "\nreceipt:0"...)
		}
		c.out = append(c.out, "\n\n\x00"...)
		if waiting++; last || idle || waiting == c.perWrite {
			waiting = 0
			_, err := c.conn.Write(c.out)
			if c.out = c.out[:0]; err != nil {
				return got, fmt.Errorf("acknowledge: %w", err)
			}
		}
	}
	for {
		err := c.receipt(0)
		if err == nil {
			return got, nil
		}
		if !bytes.Equal(c.f.command, []byte("MESSAGE")) || count != 0 {
			return got, fmt.Errorf("wait for the last ACK's receipt: %w", err)
		}
	}
}

// leave says DISCONNECT, and returns when the broker has done all before it. No more messages may come.
func (c *client) leave() error {
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	err := c.write("DISCONNECT\nreceipt:0\n\n\x00")
	if err == nil {
		err = c.receipt(0)
	}
	if err != nil {
		return fmt.Errorf("disconnect a consumer: %w", err)
	}
	return nil
}

// pingPong sends one SEND at a time, for d, and returns how long each receipt took, in order of size.
func (c *client) pingPong(destination string, d time.Duration) ([]time.Duration, error) {
	_ = c.conn.SetDeadline(time.Now().Add(d + patience))
	var took []time.Duration
	for end, start := time.Now().Add(d), time.Now(); start.Before(end); {
		c.out = appendSend(c.out[:0], destination, c.sends, len(took))
		if _, err := c.conn.Write(c.out); err != nil {
			return nil, fmt.Errorf("send: %w", err)
		}
		if err := c.receipt(len(took)); err != nil {
			return nil, err
		}
		now := time.Now()
		took, start = append(took, now.Sub(start)), now
	}
	slices.Sort(took)
	return took, nil
}

// each runs f for n connections to addr at once, all logged in before the first begins, and measures from then to the end of the last.
func each(ctx context.Context, addr string, n, perWrite int, f func(i int, c *client) error) (time.Duration, error) {
	return door{addr: addr, host: "bench"}.each(ctx, n, perWrite, f)
}

func (d door) each(ctx context.Context, n, perWrite int, f func(i int, c *client) error) (time.Duration, error) {
	clients := make([]*client, 0, n)
	defer func() {
		for _, c := range clients {
			c.close()
		}
	}()
	for range n {
		c, err := d.connect(ctx, readBuffer)
		if err != nil {
			return 0, err
		}
		c.perWrite = perWrite
		clients = append(clients, c)
	}
	defer context.AfterFunc(ctx, func() {
		for _, c := range clients {
			_ = c.conn.SetDeadline(time.Unix(1, 0))
		}
	})()
	start := time.Now()
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() { errs[i] = f(i, c) })
	}
	wg.Wait()
	return time.Since(start), errors.Join(append(errs, context.Cause(ctx))...)
}
