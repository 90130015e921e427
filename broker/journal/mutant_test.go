package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mutant is a fault that somebody could put into the journal: a change of its source, and the tests that must notice. An overlay of the build applies
// it, so that no switch has to live in the code.
type mutant struct {
	name  string
	test  string // as -run takes it
	file  string
	edits []string // old, new, old, new, …; each old occurs once
}

var mutants = []mutant{
	{"no epoch check", "TestOwnerWakesAnywhere", "commit.go", []string{
		"if err := j.checked.look(j.mark); err != nil {", "if err := j.checked.look(j.mark); false {",
	}},
	{"epoch check before the write", "TestOwnerWakesAnywhere", "commit.go", []string{
		"	b.finish()\n", "	b.finish()\n	early := j.checked.look(j.mark)\n",
		"if err := j.checked.look(j.mark); err != nil {", "if err := early; err != nil {",
	}},
	{"receipt before the sync", "TestCrashEverywhere", "commit.go", []string{
		"			took, err = j.commit(b)\n", "			j.opt.Durable(b.last)\n			took, err = j.commit(b)\n",
	}},
	{"batch not synced", "TestCrashEverywhere", "commit.go", []string{
		"if err := j.disk.sync(j.file); err != nil {", "if err := error(nil); err != nil {",
	}},
	{"failed sync tried again", "TestEveryFaultIsFinal", "commit.go", []string{
		"if err := j.disk.sync(j.file); err != nil {", "if err := j.disk.sync(j.file); err != nil && j.disk.sync(j.file) != nil {",
	}},
	{"mark not written", "TestCutInAcknowledgedBatchIsRefused", "commit.go", []string{
		"if err := j.mark.put(mark{lsn: b.last, segment: b.id, end: end}); err != nil {", "if err := error(nil); end < 0 {",
	}},
	{"mark not believed", "TestCutInAcknowledgedBatchIsRefused", "recover.go", []string{
		"proof := max(r.mark.lsn, end.beyond.durable)", "proof := end.beyond.durable",
	}},
	{"durable LSN too high", "TestCrashEverywhere", "batch.go", []string{
		"durable: b.first - 1}", "durable: lsn - 1}",
	}},
	{"durable LSN missing", "TestHoleBeforeLaterBatchIsRefused", "batch.go", []string{
		"durable: b.first - 1}", "durable: 0}",
	}},
	{"head not written again", "TestCrashEverywhere", "batch.go", []string{
		"j.roll(head)\n", "j.roll(head[:0])\n",
	}},
	{"file deleted before the record of it is durable", "TestCrashEverywhere", "janitor.go", []string{
		"doomed{lsn, ", "doomed{0, ",
	}},
	{"file deleted without a record of it", "TestCrashEverywhere", "commit.go", []string{
		"	lsn := j.put(typeDrop, 0, appendDrop(nil, ids), 0)\n", "	lsn := LSN(j.durable.Load())\n",
	}},
	{"endings told again hold nothing", "TestForwardedEndingHolds|TestModel", "ledger.go", []string{
		"for _, id := range a.Again {", "for _, id := range a.Again[:0] {",
	}},
	{"endings hold nothing", "TestModel", "ledger.go", []string{
		"own.refer(end.Segment)", "_ = own",
	}},
	{"seed and header without the epoch", "TestRecordCorruption", "record.go", []string{
		"binary.LittleEndian.PutUint64(b[8:], epoch)", "_ = epoch",
		"h.epoch == epoch && ", "",
	}},
	{"index trusted", "TestIndexIsAsGoodAsItsSegment", "index.go", []string{
		"!= crc32.Update(seed(s.id, s.epoch), castagnoli, b[12:]):", "== 0:",
	}},
	{"segment dropped that was not quite emptied", "TestForwardedTooEarly", "evacuate.go", []string{
		"a.refs, a.emptied, a.left = nil, true, a.live", "a.refs, a.emptied, a.left, a.live = nil, true, a.live, 0",
	}},
	{"checksum not looked at", "TestBitFlips", "scan.go", []string{
		"if err != nil || !checkSum(b, s.seed) {", "if err != nil {",
	}},
	{"checksum not looked at by Read", "TestRead", "read.go", []string{
		"if !checkSum(buf, seed(f.place.id, f.place.epoch)) {", "if false {",
	}},
	{"name of a new segment not synced", "TestCrashEverywhere", "pool.go", []string{
		"if err = j.disk.syncDir(); err != nil && !isCrowded(err) {", "if err = nil; err != nil {",
	}},
	{"segment begun without its file", "TestNoSegmentBeforeItsFile", "pool.go", []string{
		"case roll || brings && ", "case !roll && brings && ",
	}},
	{"no reserve while a file is made", "TestFullDiskBehindAppend", "pool.go", []string{
		"case roll || brings && ", "case roll || false && ",
	}},
	{"tail not synced by Open", "TestOrderOfTakeOver|TestCrashEverywhere", "recover.go", []string{
		"	return r.disk.sync(f)\n", "	return nil\n",
	}},
	{"tail synced by Open and not written again", "TestForgottenBatchIsWrittenAgain", "recover.go", []string{
		"if err := r.disk.write(f, b, end.batch); err != nil {", "if err := error(nil); err != nil {",
	}},
	{"tail of an opening group not written again", "TestForgottenBatchIsWrittenAgain", "replay.go", []string{
		"		c.batch = 0 // it was written with the header\n", "",
	}},
	{"octets written again that are not what was read", "TestForgottenPagesAreNotWritten", "recover.go", []string{
		"if !r.same(end, b) {", "if false {",
	}},
	{"epoch not synced when it is claimed", "TestOrderOfTakeOver", "epoch.go", []string{
		"		err = d.syncDir()\n", "		err = nil\n",
	}},
	{"opening group need not be whole", "TestHeadAndItsRecordAreOne", "replay.go", []string{
		"c.begun = c.begun || h.flags&flagOpens != 0", "c.begun = true",
	}},
	{"octets of a stale owner believed", "TestOwnerWakesAnywhere", "replay.go", []string{
		"for sc.off < s.end {", "for sc.off < sc.size {",
	}},
	{"records out of place believed", "TestRecordCorruption", "scan.go", []string{
		"if err != nil || !ok || h.lsn != s.next {", "if s.next = h.lsn; err != nil || !ok {",
	}},
}

func TestMutants(t *testing.T) { runMutants(t, mutants) }

// runMutants builds the journal with each fault in turn and runs the tests that must notice. The short tier only sees to it that each fault can still be
// put in.
func runMutants(t *testing.T, mutants []mutant) {
	caught := 0
	for _, m := range mutants {
		b, err := m.apply()
		if err != nil {
			t.Errorf("%s: %v; bring the table of mutants up to date", m.name, err)
			continue
		}
		if !*full {
			continue
		}
		why, err := m.run(t, b)
		if err != nil {
			t.Errorf("%-60s %v", m.name, err)
			continue
		}
		caught++
		t.Logf("%-60s caught by %s", m.name, why)
	}
	if *full {
		t.Logf("mutants caught %d/%d", caught, len(mutants))
	}
}

// apply returns the changed file.
func (m mutant) apply() ([]byte, error) {
	b, err := os.ReadFile(m.file)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(m.edits); i += 2 {
		from := []byte(m.edits[i])
		if n := bytes.Count(b, from); n != 1 {
			return nil, fmt.Errorf("%q occurs %d times in %s", from, n, m.file)
		}
		b = bytes.Replace(b, from, []byte(m.edits[i+1]), 1)
	}
	_, err = parser.ParseFile(token.NewFileSet(), m.file, b, 0)
	return b, err
}

// run says which tests failed with the fault. It is an error if none did, or if there was nothing to run.
func (m mutant) run(t *testing.T, source []byte) (why string, err error) {
	dir := t.TempDir()
	original, err := filepath.Abs(m.file)
	if err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {original: filepath.Join(dir, m.file)}})
	if err != nil {
		return "", err
	}
	for name, b := range map[string][]byte{m.file: source, "overlay.json": overlay} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return "", err
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	program := filepath.Join(dir, "journal.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("does not build: %w\n%s", err, out)
	}
	test := exec.CommandContext(ctx, program, "-test.run", m.test, "-test.timeout", "100s", "-test.v")
	test.Env = append(os.Environ(), "TMPDIR="+dir) // for the stores that tests keep when they fail
	out, err := test.CombinedOutput()
	if err == nil {
		return "", fmt.Errorf("NOT caught by %s:\n%.500s", m.test, out)
	}
	var failed []string
	for _, line := range strings.Split(string(out), "\n") {
		if rest, ok := strings.CutPrefix(line, "--- FAIL: "); ok {
			failed = append(failed, rest)
		}
		if strings.HasPrefix(line, "panic: ") {
			failed = append(failed, line)
		}
	}
	if len(failed) == 0 {
		return "", fmt.Errorf("nothing failed, yet: %w\n%.500s", err, out)
	}
	return strings.Join(failed, ", "), nil
}
