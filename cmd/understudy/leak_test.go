package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"testing"
	"time"
)

// childEnv makes the test binary be the program itself, to be stopped and killed as only a process of its own can be.
const childEnv = "UNDERSTUDY_TEST_CHILD"

// TestMain fails the package when goroutines are left after its tests. It also lets the test binary be the program.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		main()
	}
	// A child that looks for races would wait a second at its end for what its other threads may still report.
	if err := os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0")); err != nil {
		panic(err)
	}
	watch := make(chan os.Signal, 1)
	signal.Notify(watch, os.Interrupt) // starts a goroutine of os/signal that never ends
	signal.Stop(watch)
	before := runtime.NumGoroutine()
	code := m.Run()
	for deadline := time.Now().Add(10 * time.Second); code == 0 && runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			fmt.Fprintf(os.Stderr, "%d goroutines are left, %d were there before:\n%s\n", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
			code = 1
		}
	}
	os.Exit(code)
}
