//go:build linux

package brokers_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/scripts/harness/brokers"
)

// orphanBinary names, in the environment of a copy of this test program, the understudy that it shall start brokers of.
const orphanBinary = "BROKERS_TEST_UNDERSTUDY"

// TestOrphans kills a program that runs a cluster: its brokers must die with it.
func TestOrphans(t *testing.T) {
	if understudy := os.Getenv(orphanBinary); understudy != "" {
		c, err := brokers.Start(t.Context(), "paired", brokers.Options{Understudy: understudy, Dir: os.Getenv("BROKERS_TEST_DIR")})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range c.Nodes() {
			fmt.Println("pid", n.PID())
		}
		fmt.Println("ready")
		time.Sleep(startLimit) // until we are killed
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "-test.run", "^TestOrphans$")
	cmd.Env = append(os.Environ(), orphanBinary+"="+binary(t), "BROKERS_TEST_DIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pids []int
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "ready" {
		if pid, err := strconv.Atoi(strings.TrimPrefix(lines.Text(), "pid ")); err == nil {
			pids = append(pids, pid)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it says that it was killed
	if len(pids) != 2 {
		t.Fatalf("the program started brokers %v, want two", pids)
	}
	deadline := time.Now().Add(10 * time.Second)
	for _, pid := range pids {
		for lives(pid) {
			if time.Now().After(deadline) {
				t.Errorf("broker %d outlives the program that started it", pid)
				_ = syscall.Kill(pid, syscall.SIGKILL)
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// lives says whether a process runs; one that nobody has waited for yet does not.
func lives(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}
