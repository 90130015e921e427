package interop

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	sidecarStart = 20 * time.Second // until it listens; it does at once, but the machine may be busy
	sidecarStop  = 40 * time.Second // after SIGTERM: more than its own --drain-timeout, which it may need for what clients left behind
	adminAnswer  = 5 * time.Second
	maxAdmin     = 1 << 20 // bytes of /metrics that are read
)

// sidecar is a running "understudy sidecar" whose brokers are those of one cluster.
type sidecar struct {
	cmd           *exec.Cmd
	gone          chan struct{}
	log           string
	listen, admin string
}

// startSidecar starts one with its files in dir. It prefers the first address, so that a fault can be aimed at what its clients use.
func startSidecar(ctx context.Context, binary, dir string, addrs []string, more []string) (*sidecar, error) {
	addrFile := filepath.Join(dir, "sidecar.addr")
	args := []string{"sidecar", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--addr-file", addrFile, "--name", "interop"}
	for i, a := range addrs {
		args = append(args, "--broker", fmt.Sprintf("stomp://%s?priority=%d", a, min(i, 1)))
	}
	s := &sidecar{cmd: exec.Command(binary, append(args, more...)...), gone: make(chan struct{}), log: filepath.Join(dir, "sidecar.log")}
	log, err := os.Create(s.log)
	if err != nil {
		return nil, fmt.Errorf("create the sidecar's log: %w", err)
	}
	defer log.Close() // the child has its own
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := start(s.cmd); err != nil {
		return nil, fmt.Errorf("start sidecar: %w", err)
	}
	go func() { _ = s.cmd.Wait(); close(s.gone) }()
	if err := s.await(ctx, addrFile); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// await reads the address file once it is there; there is nothing to be told by.
func (s *sidecar) await(ctx context.Context, addrFile string) error {
	ctx, cancel := context.WithTimeout(ctx, sidecarStart)
	defer cancel()
	for {
		if text, err := os.ReadFile(addrFile); err == nil {
			for line := range strings.Lines(string(text)) {
				name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
				switch name {
				case "listen":
					s.listen = value
				case "admin":
					s.admin = value
				}
			}
			if s.listen != "" && s.admin != "" {
				return nil
			}
		}
		select {
		case <-s.gone:
			text, _ := os.ReadFile(s.log)
			return fmt.Errorf("the sidecar ended instead of listening: %s", text)
		case <-ctx.Done():
			return fmt.Errorf("wait for the sidecar to listen: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// metric is the sum of a counter over all its labels.
func (s *sidecar) metric(name string) (int, error) {
	client := http.Client{Timeout: adminAnswer}
	answer, err := client.Get("http://" + s.admin + "/metrics")
	if err != nil {
		return 0, fmt.Errorf("ask the sidecar for its metrics: %w", err)
	}
	defer answer.Body.Close()
	sum := 0
	lines := bufio.NewScanner(io.LimitReader(answer.Body, maxAdmin))
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), "understudy_sidecar_"+name)
		if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		n, err := strconv.Atoi(rest[strings.LastIndexByte(rest, ' ')+1:])
		if err != nil {
			return 0, fmt.Errorf("read metric %s: %w", name, err)
		}
		sum += n
	}
	return sum, lines.Err()
}

// stop ends it in good order and says so if that does not work.
func (s *sidecar) stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.gone:
	case <-time.After(sidecarStop):
		_ = s.cmd.Process.Kill()
		<-s.gone
		return fmt.Errorf("the sidecar did not end on SIGTERM within %v", sidecarStop)
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("the sidecar ended with exit code %d", code)
	}
	return nil
}
