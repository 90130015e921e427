package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/understudy-mq/understudy/scripts/harness/interop"
)

// runSuite runs a client library's own tests at every broker of the plan. code is what it returns when nothing differs.
func (s settings) runSuite(ctx context.Context, r *interop.Runner, p interop.Plan, scratch string, out io.Writer, code int) (int, error) {
	if s.suite != "stompngo" {
		return misused, fmt.Errorf("unknown suite %q: it must be stompngo", s.suite)
	}
	suite, err := r.BuildSuite(ctx, scratch)
	if err != nil {
		return failed, err
	}
	for _, kind := range p.Brokers {
		err := suite.Run(ctx, kind, func(result interop.SuiteResult) {
			if len(result.Differences) > 0 {
				code = broken
			}
			if s.json {
				_ = json.NewEncoder(out).Encode(result)
				return
			}
			word := "ok  "
			if len(result.Differences) > 0 {
				word = "FAIL"
			}
			fmt.Fprintf(out, "%s %-13s STOMP %s %-23s %d passed, %d failed, %d skipped, %d take-overs, %.1f s\n",
				word, result.Broker, result.Version, result.Mode, result.Passed, result.Failed, result.Skipped, result.TakeOvers, result.Seconds)
			for _, d := range append(result.Differences, result.Better...) {
				fmt.Fprintf(out, "     %s\n", d)
			}
		})
		if err != nil {
			return failed, err
		}
	}
	return code, nil
}
