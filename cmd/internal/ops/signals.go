package ops

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Why a process ends.
var (
	// ErrSignal is the cause of the first context: end in order.
	ErrSignal = errors.New("told to end by a signal")
	// ErrSecondSignal is the cause of the second: end now.
	ErrSecondSignal = errors.New("told a second time to end")
)

// Signals returns two contexts under parent. The first is cancelled by the first SIGTERM or SIGINT, or with parent: end in order. The
// second is cancelled by the second signal: end now. stop ends the watch and both contexts.
func Signals(parent context.Context) (orderly, now context.Context, stop func()) {
	now, cancelNow := context.WithCancelCause(context.WithoutCancel(parent))
	orderly, cancelOrderly := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { watch(signals, done, cancelOrderly, cancelNow) })
	return orderly, now, sync.OnceFunc(func() {
		signal.Stop(signals)
		close(done)
		watching.Wait()
		cancelOrderly(context.Canceled)
		cancelNow(context.Canceled)
	})
}

// Hangups calls reload for each SIGHUP, one at a time, until stop is called; stop waits for the last.
func Hangups(reload func()) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-signals:
				reload()
			case <-done:
				return
			}
		}
	})
	return sync.OnceFunc(func() {
		signal.Stop(signals)
		close(done)
		watching.Wait()
	})
}

func watch(signals <-chan os.Signal, done <-chan struct{}, orderly, now context.CancelCauseFunc) {
	for first := true; ; first = false {
		select {
		case <-done:
			return
		case <-signals:
		}
		if first {
			orderly(ErrSignal)
			continue
		}
		now(ErrSecondSignal)
	}
}
