package bench

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
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrNoHAProxy says that there is nothing to compare with.
var ErrNoHAProxy = errors.New("haproxy is not installed: run scripts/bench --install, or install it by this system's own means")

// haproxy is one with a listener for each peer.
type haproxy struct {
	*process
	listen map[string]string // by peer's address
}

// outsidePath is where packages put haproxy, which is not in every user's PATH.
var outsidePath = []string{"/usr/sbin/haproxy", "/usr/local/sbin/haproxy"}

func findHAProxy() (string, error) {
	for _, name := range append([]string{"haproxy"}, outsidePath...) {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrNoHAProxy
}

// HAProxyVersion asks the program; ErrNoHAProxy if there is none.
func HAProxyVersion(ctx context.Context) (string, error) {
	path, err := findHAProxy()
	if err != nil {
		return "", err
	}
	said, err := exec.CommandContext(ctx, path, "-v").Output()
	if err != nil {
		return "", fmt.Errorf("ask haproxy for its version: %w", err)
	}
	v := regexp.MustCompile(`[0-9]+\.[0-9]+[^ ]*`).Find(said)
	if v == nil {
		return "", fmt.Errorf("ask haproxy for its version: it said %q", said)
	}
	return string(v), nil
}

// haproxyConfig relays TCP without looking at it, by splice(2) where haproxy finds that worth it: the best it can do for such a load.
func haproxyConfig(threads, most int, listen, peers []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "global\n  nbthread %d\n  maxconn %d\ndefaults\n  mode tcp\n  option splice-auto\n", threads, most)
	b.WriteString("  timeout connect 10s\n  timeout client 1h\n  timeout server 1h\n")
	for i := range peers {
		fmt.Fprintf(&b, "listen peer%d\n  bind %s\n  server s %s\n", i, listen[i], peers[i])
	}
	return b.String()
}

func startHAProxy(ctx context.Context, dir string, threads, most int, peers ...string) (*haproxy, error) {
	dir, err := os.MkdirTemp(dir, "haproxy-")
	if err != nil {
		return nil, err
	}
	binary, err := findHAProxy()
	if err != nil {
		return nil, err
	}
	var last error
	for range 3 { // a port that was free may be taken by now
		listen, err := freePorts(len(peers))
		if err != nil {
			return nil, err
		}
		file := filepath.Join(dir, "haproxy.cfg")
		if err := os.WriteFile(file, []byte(haproxyConfig(threads, most, listen, peers)), 0o600); err != nil {
			return nil, fmt.Errorf("write haproxy's configuration: %w", err)
		}
		p, err := startProcess("haproxy", dir, binary, "-db", "-f", file)
		if err != nil {
			return nil, err
		}
		h := &haproxy{process: p, listen: map[string]string{}}
		for i := range peers {
			h.listen[peers[i]] = listen[i]
		}
		if last = p.await(ctx, func() bool { return listening(listen[len(listen)-1]) }); last == nil {
			return h, nil
		}
		p.stop(syscall.SIGTERM)
	}
	return nil, last
}

// understudy is a running broker or sidecar.
type understudy struct {
	*process
	listen, admin string
}

func startUnderstudy(ctx context.Context, binary, dir, command string, args ...string) (*understudy, error) {
	dir, err := os.MkdirTemp(dir, command+"-")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "addr")
	args = append([]string{command, "--addr-file", file, "--admin-listen", "127.0.0.1:0", "--name", "bench"}, args...)
	p, err := startProcess(command, dir, binary, args...)
	if err != nil {
		return nil, err
	}
	u := &understudy{process: p}
	err = p.await(ctx, func() bool {
		text, _ := os.ReadFile(file)
		for line := range strings.Lines(string(text)) {
			switch name, value, _ := strings.Cut(strings.TrimSpace(line), "="); name {
			case "listen":
				u.listen = value
			case "admin":
				u.admin = value
			}
		}
		return u.listen != "" && u.admin != ""
	})
	if err != nil {
		p.stop(syscall.SIGKILL)
		return nil, err
	}
	return u, nil
}

// startBroker serves the store in dir at listen and waits until it does.
func startBroker(ctx context.Context, binary, logs, dir, listen string, most int) (*understudy, error) {
	b, err := startUnderstudy(ctx, binary, logs, "broker", "--store", "bench="+dir, "--listen", listen, "--max-connections", strconv.Itoa(most))
	if err != nil {
		return nil, err
	}
	err = b.await(ctx, func() bool {
		c, err := connect(ctx, b.listen, 1<<10)
		if err == nil {
			c.close()
		}
		return err == nil
	})
	if err != nil {
		b.stop(syscall.SIGKILL)
		return nil, err
	}
	return b, nil
}

func startSidecar(ctx context.Context, binary, logs, peer string, most int) (*understudy, error) {
	return startUnderstudy(ctx, binary, logs, "sidecar", "--listen", "127.0.0.1:0", "--broker", "stomp://"+peer, "--max-connections", strconv.Itoa(most),
		"--log-level", "error")
}

const maxMetrics = 1 << 20 // octets

// sessions is how many the sidecar has in a state.
func (u *understudy) sessions(state string) (int, error) {
	n, told, err := u.metric("understudy_sidecar_sessions", `state="`+state+`"`)
	if err == nil && !told {
		err = fmt.Errorf("the sidecar's metrics do not say how many sessions are in state %s", state)
	}
	return int(n), err
}

// metric is the sum of the series of that name that have all the labels; told is false if there is none.
func (u *understudy) metric(name string, labels ...string) (sum float64, told bool, err error) {
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Get("http://" + u.admin + "/metrics")
	if err != nil {
		return 0, false, fmt.Errorf("ask a process for its metrics: %w", err)
	}
	defer answer.Body.Close()
	return sumSeries(io.LimitReader(answer.Body, maxMetrics), name, labels...)
}

func sumSeries(text io.Reader, name string, labels ...string) (sum float64, told bool, err error) {
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		series, value, _ := strings.Cut(lines.Text(), " ")
		of, has, _ := strings.Cut(series, "{")
		if of != name || slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(has, l) }) {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, false, fmt.Errorf("read the metric %s: %w", name, err)
		}
		sum, told = sum+n, true
	}
	return sum, told, lines.Err()
}
