package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startWait  = 30 * time.Second      // until a process listens; the machine may be busy
	stopWait   = 10 * time.Second      // after SIGTERM
	shownBytes = 2 << 10               // of a log, in an error
	tick       = 10 * time.Millisecond // of /proc/PID/stat: USER_HZ is 100 on every architecture that Go runs on
)

// process is a child whose time and memory are measured.
type process struct {
	cmd  *exec.Cmd
	gone chan struct{}
	log  string
}

func startProcess(name, dir, binary string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(binary, args...), gone: make(chan struct{}), log: filepath.Join(dir, name+".log")}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create the log of %s: %w", name, err)
	}
	defer log.Close() // the child has its own
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{}
	dieWithParent(p.cmd.SysProcAttr)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "UNDERSTUDY_") && !strings.HasPrefix(e, "HAPROXY_") { // of what the user runs elsewhere
			p.cmd.Env = append(p.cmd.Env, e)
		}
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.gone) }()
	return p, nil
}

// await asks ready until it says yes: there is nothing to be told by.
func (p *process) await(ctx context.Context, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for !ready() {
		select {
		case <-p.gone:
			return fmt.Errorf("%s ended instead of listening: %s", filepath.Base(p.cmd.Path), p.said())
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to listen: %w: %s", filepath.Base(p.cmd.Path), ctx.Err(), p.said())
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}

// said is the end of the log.
func (p *process) said() string {
	text, _ := os.ReadFile(p.log)
	return string(text[max(0, len(text)-shownBytes):])
}

func (p *process) stop(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.gone:
	case <-time.After(stopWait):
		_ = p.cmd.Process.Kill()
		<-p.gone
	}
}

// cpuTime is what a process has spent.
type cpuTime struct{ user, system time.Duration }

func (c cpuTime) sub(d cpuTime) cpuTime { return cpuTime{c.user - d.user, c.system - d.system} }
func (c cpuTime) add(d cpuTime) cpuTime { return cpuTime{c.user + d.user, c.system + d.system} }

// cpu reads it from /proc, all threads together.
func (p *process) cpu() (cpuTime, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return cpuTime{}, fmt.Errorf("read the CPU time of a process: %w", err)
	}
	return parseStat(text)
}

// parseStat takes utime and stime, fields 14 and 15, from the text of /proc/PID/stat. The second field is a name in parentheses that may have
// spaces and parentheses in it.
func parseStat(text []byte) (cpuTime, error) {
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return cpuTime{}, fmt.Errorf("parse /proc/PID/stat: %q", text)
	}
	user, err1 := strconv.ParseInt(string(fields[11]), 10, 64)
	system, err2 := strconv.ParseInt(string(fields[12]), 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return cpuTime{}, fmt.Errorf("parse /proc/PID/stat: %w", err)
	}
	return cpuTime{time.Duration(user) * tick, time.Duration(system) * tick}, nil
}

// rss is the resident memory in octets, shared pages of the binary included.
func (p *process) rss() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read the memory of a process: %w", err)
	}
	return parseRSS(text)
}

func parseRSS(text []byte) (int64, error) {
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			n, err := strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte("kB")))), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("parse VmRSS: %w", err)
			}
			return n << 10, nil
		}
	}
	return 0, errors.New("parse /proc/PID/status: no VmRSS")
}

// freePorts are ports that nobody listens on at this moment.
func freePorts(n int) ([]string, error) {
	addrs := make([]string, 0, n)
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer ln.Close()
		addrs = append(addrs, ln.Addr().String())
	}
	return addrs, nil
}

func listening(addr string) bool {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}
