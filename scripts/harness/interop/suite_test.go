package interop

import (
	"maps"
	"slices"
	"testing"
)

func TestParseTests(t *testing.T) {
	said := "=== RUN   TestOne\nnoise--- PASS: TestOne (0.01s)\n=== RUN   TestTwo\n--- SKIP: TestTwo (0.00s)\n" +
		"=== RUN   TestThree\n=== RUN   TestThree/part\n    --- FAIL: TestThree/part (0.10s)\n--- FAIL: TestThree (0.10s)\n=== RUN   TestFour\npanic: gone\n"
	want := map[string]string{"TestOne": "PASS", "TestTwo": "SKIP", "TestThree": "FAIL", "TestThree/part": "FAIL", "TestFour": "did not end"}
	got := parseTests([]byte(said))
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	var r SuiteResult
	r.count(got)
	if r.Passed != 1 || r.Skipped != 1 || r.Failed != 3 {
		t.Errorf("counted %d passed, %d skipped, %d failed; want 1, 1, 3", r.Passed, r.Skipped, r.Failed)
	}
}

func TestDifferences(t *testing.T) {
	direct := map[string]string{"A": "PASS", "B": "FAIL", "C": "SKIP", "D": "PASS"}
	if worse, better := differences(direct, maps.Clone(direct)); len(worse)+len(better) != 0 {
		t.Errorf("the same results differ: %v, %v", worse, better)
	}
	got, better := differences(direct, map[string]string{"A": "FAIL", "B": "PASS", "C": "PASS", "E": "PASS"})
	if want := []string{"B: direct FAIL, now PASS"}; !slices.Equal(better, want) {
		t.Errorf("better %q, want %q", better, want)
	}
	want := []string{"A: direct PASS, now FAIL", "C: direct SKIP, now PASS", "D: direct PASS, now did not run", "E: direct did not run, now PASS"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
