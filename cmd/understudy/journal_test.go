package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/understudy-mq/understudy/broker"
	"github.com/understudy-mq/understudy/broker/journal"
)

// program runs the program in a process of its own and returns how it ended.
func program(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// damagedStore is a store of a broker with 20 messages in each of two queues, of which one octet in the body of one is not what it was.
func damagedStore(t *testing.T) (sound, damaged string) {
	t.Helper()
	sound, damaged = filepath.Join(t.TempDir(), "sound"), filepath.Join(t.TempDir(), "damaged")
	r := start(t, "broker", "--store", sound, "--listen", "127.0.0.1:0", "--admin-listen", "")
	const hello, bye = "CONNECT\naccept-version:1.2\nhost:x\n\n\x00", "DISCONNECT\nreceipt:last\n\n\x00"
	for deadline := time.Now().Add(10 * time.Second); !strings.HasPrefix(say(t, r.addrs["listen"], hello+bye), "CONNECTED"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the broker does not serve: %s", r.log)
		}
	}
	var b strings.Builder
	b.WriteString(hello)
	for i := range 20 {
		for _, q := range []string{"orders", "bills"} {
			b.WriteString("SEND\ndestination:/queue/" + q + "\nreceipt:r\nsecret-header:hidden\n\nbody " + strings.Repeat(string(rune('A'+i)), 300) + " of " + q + "\x00")
		}
	}
	b.WriteString(bye)
	if answer := say(t, r.addrs["listen"], b.String()); strings.Count(answer, "RECEIPT\n") != 41 {
		t.Fatalf("%.300q", answer)
	}
	if code, _, stderr := program(t, "journal", "repair", "--accept-loss", sound); code != exitFailed || !strings.Contains(stderr, "owner that lives") || !strings.Contains(stderr, "stop it first") {
		t.Errorf("repair beside a broker: %d %s", code, stderr)
	}
	if code, stdout, stderr := program(t, "journal", "check", sound); code != exitOK || !strings.Contains(stdout, "this is a moment") {
		t.Errorf("check beside a broker: %d %s %s", code, stdout, stderr)
	}
	r.stop(t)
	if err := os.CopyFS(damaged, os.DirFS(sound)); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(damaged, "seg-*"))
	if err != nil || len(segments) == 0 {
		t.Fatal("no segments", err)
	}
	for _, name := range segments {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(data, []byte("DDDD")); i > 0 {
			data[i] ^= 1
			if err := os.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
			return sound, damaged
		}
	}
	t.Fatal("the message is not in the journal")
	return "", ""
}

// TestDamagedStore is what an operator goes through: the broker refuses and says what is hit, check says all of it, repair gives it up, the broker serves the rest.
func TestDamagedStore(t *testing.T) {
	sound, damaged := damagedStore(t)
	refused := func() {
		t.Helper()
		code, _, stderr := program(t, "broker", "--store", damaged, "--listen", "127.0.0.1:0", "--admin-listen", "")
		last := stderr[strings.LastIndex(strings.TrimSpace(stderr), "\n")+1:]
		if code != exitDamaged {
			t.Fatalf("the broker ends with %d: %s", code, stderr)
		}
		for _, want := range []string{"journal is damaged", "seg-00000001-000000000001.log at offset ", "records ", "hit, probably: /queue/orders"} {
			if !strings.Contains(last, want) {
				t.Errorf("the broker says %q, not %q", last, want)
			}
		}
	}
	refused()

	code, stdout, stderr := program(t, "journal", "check", "--json", damaged)
	var report journal.Report
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != exitDamaged || !strings.Contains(stderr, "journal is damaged") {
		t.Fatalf("check: %d %v %s %s", code, err, stdout, stderr)
	}
	if report.Verdict != journal.Damaged || len(report.Problems) != 1 || len(report.Problems[0].Hits) != 1 || report.Problems[0].Hits[0].Name != "/queue/orders" {
		t.Errorf("check: %+v", report)
	}
	if code, stdout, _ := program(t, "journal", "check", damaged); code != exitDamaged || !strings.Contains(stdout, "DAMAGED: seg-") || !strings.Contains(stdout, "repair --accept-loss "+damaged) {
		t.Errorf("check: %d %s", code, stdout)
	}
	if code, stdout, stderr := program(t, "journal", "check", sound); code != exitOK || !strings.Contains(stdout, ": ok\n") || stderr != "" {
		t.Errorf("check of a sound one: %d %s %s", code, stdout, stderr)
	}
	refused() // the check changed nothing

	if code, _, stderr := program(t, "journal", "repair", damaged); code != exitUsage || !strings.Contains(stderr, "--accept-loss") {
		t.Errorf("repair without consent: %d %s", code, stderr)
	}
	refused()
	code, stdout, stderr = program(t, "journal", "repair", "--accept-loss", "--json", damaged)
	var done struct {
		journal.Repaired
		Consequences []string
	}
	if err := json.Unmarshal([]byte(stdout), &done); err != nil || code != exitOK {
		t.Fatalf("repair: %d %v %s %s", code, err, stdout, stderr)
	}
	if len(done.Given) != 1 || done.Given[0].Records != 1 || len(done.Given[0].Copies) != 1 || len(done.Consequences) == 0 {
		t.Errorf("repair: %s", stdout)
	}
	for _, name := range append(done.Given[0].Copies, done.List) {
		if _, err := os.Stat(filepath.Join(damaged, name)); err != nil {
			t.Error(err)
		}
	}
	if code, stdout, _ := program(t, "journal", "check", damaged); code != exitOK || !strings.Contains(stdout, "1 given up by a repair") {
		t.Errorf("check after the repair: %d %s", code, stdout)
	}
	if code, stdout, _ := program(t, "journal", "repair", "--accept-loss", damaged); code != exitOK || !strings.Contains(stdout, "nothing to repair") {
		t.Errorf("a second repair: %d %s", code, stdout)
	}
	r := start(t, "broker", "--store", damaged, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, body := r.get(t, "/status")
		if strings.Contains(body, `"messages":39`) || strings.Contains(body, `"messages": 39`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("39 of 40 messages should be there: %s", body)
		}
	}
	r.stop(t)
}

func TestDumpHidesWhatClientsSent(t *testing.T) {
	sound, damaged := damagedStore(t)
	code, stdout, stderr := program(t, "journal", "dump", sound)
	if code != exitOK || strings.Count(stdout, `to "/queue/bills", headers `) != 20 || !strings.Contains(stdout, "manifest") || strings.Contains(stdout, "hidden") || strings.Contains(stdout, "AAAA") {
		t.Errorf("%d %s %.2000s", code, stderr, stdout)
	}
	code, stdout, _ = program(t, "journal", "dump", "--json", "--bodies", sound)
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	found := 0
	for _, line := range lines {
		var d broker.Description
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		for _, m := range d.Messages {
			if strings.Contains(m.Lines, "secret-header:hidden") && bytes.HasPrefix(m.Content, []byte("body ")) {
				found++
			}
		}
	}
	if code != exitOK || found != 40 {
		t.Errorf("%d, %d messages: %.2000s", code, found, stdout)
	}
	code, stdout, stderr = program(t, "journal", "dump", damaged) // all but one, and that it is not all
	if code != exitDamaged || strings.Count(stdout, `to "/queue/orders"`) != 19 || !strings.Contains(stderr, "/queue/orders") {
		t.Errorf("%d %s %.2000s", code, stderr, stdout)
	}
}

func TestJournalUsage(t *testing.T) {
	empty := t.TempDir()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"check"}, "understudy journal check DIR"},
		{[]string{"check", empty, "--json"}, "--json must come before the directory"},
		{[]string{"check", empty, empty}, "one directory too many"},
		{[]string{"check", empty}, "no journal in " + empty},
		{[]string{"dump", filepath.Join(empty, "nowhere")}, "no journal in "},
		{[]string{"repair", "--accept-loss", empty}, "no journal in " + empty},
		{[]string{"check", "--frobnicate", empty}, "frobnicate"},
		{[]string{"mend", empty}, `no command "mend"`},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), append([]string{"understudy", "journal"}, c.args...), &out, &errs)
		if code != exitUsage || !strings.Contains(errs.String(), c.want) {
			t.Errorf("%q: %d %s%s", c.args, code, out.String(), errs.String())
		}
	}
	if list, _ := os.ReadDir(empty); len(list) > 0 {
		t.Errorf("something was made in an empty directory: %v", list)
	}
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"understudy", "journal"}, &out, &errs); code != exitOK || !strings.Contains(out.String(), "repair") {
		t.Errorf("%d %s%s", code, out.String(), errs.String())
	}
}

func TestProgressOffTerminal(t *testing.T) {
	var b strings.Builder
	p := newProgress(&b)
	p.show(1, 10)
	if b.Len() > 0 {
		t.Errorf("%q before it took long", b.String())
	}
	p.next = time.Now()
	p.show(5<<20, 10<<20)
	p.end()
	if b.String() != " 50 % of 10.0 MiB\n" {
		t.Errorf("%q", b.String())
	}
}
