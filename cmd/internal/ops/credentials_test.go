package ops

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCredentialsFits(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"mq1.example:61613", "mq1.example:61613", true}, {"MQ1.example:61613", "mq1.EXAMPLE:61613", true}, {"mq1.example:61613", "mq1.example:616130", false},
		{"mq1.example:61613", "xmq1.example:61613", false}, {"*", "a:1", true}, {"*.example:*", "b.example:7", true}, {"*.example:*", "b.example.org:7", false},
		{"a*a", "a", false}, {"a*b*c", "axbyc", true}, {"a*b*c", "acb", false}, {"[::1]:*", "[::1]:7", true}, {"a:1", "", false}, {"**", "x", true},
	} {
		if got := fits(c.pattern, c.name); got != c.want {
			t.Errorf("%q fits %q: %v", c.pattern, c.name, got)
		}
	}
}

func TestCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials.json")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	log := new(strings.Builder)
	write(`[{"broker":"a:1","login":"first","passcode":"hunter2"},{"broker":"a:*","login":"second"}]`, 0o640)
	c, err := OpenCredentials(file, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	want := func(login, passcode string, names ...string) {
		t.Helper()
		if l, p := c.For(names...); l != login || p != passcode {
			t.Errorf("%v: %q %q, want %q %q", names, l, p, login, passcode)
		}
	}
	want("first", "hunter2", "a:1", "")
	want("second", "", "10.0.0.1:2", "a:2")
	want("", "", "b:1", "")
	if !strings.Contains(log.String(), "chmod 600") {
		t.Errorf("an open file is not warned of: %s", log)
	}
	for text, complaint := range map[string]string{
		"": "line 1",
		"[\n{\"broker\":\"a\",\n\"login\":\"hunter2\" oops":                                                  "line 3",
		`[{"broker":"a","login":"x","passcode":12345678}]`:                                                   "line 1",
		`[{"broker":"a","login":"x","password":"hunter2"}]`:                                                  "line 1",
		`[{"broker":"a","passcode":"hunter2"}]`:                                                              "entry 1 lacks",
		`[{"broker":"a","login":"x","passcode":"hunter2\n"}]`:                                                "end of line",
		`[{"broker":"a","login":"x","passcode":"` + strings.Repeat("hunter2", maxCredential) + `"}]`:         "more than",
		`[{"broker":"a","login":"x","passcode":"hunter2"}] [{"broker":"a","login":"hunter2","passcode":""}]`: "behind the end",
	} {
		write(text, 0o600)
		err := c.Reload()
		if err == nil || !IsUsage(err) || !strings.Contains(err.Error(), complaint) || strings.Contains(err.Error(), "12345678") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%.60q: %v, want %q and no secret", text, err, complaint)
		}
		want("first", "hunter2", "a:1")
	}
	write(`[{"broker":"*","login":"third","passcode":"new"}]`, 0o600)
	c.mu.Lock()
	c.checked = time.Now().Add(-checkFiles)
	c.mu.Unlock()
	want("third", "new", "a:1")
	if strings.Contains(log.String(), "hunter2") || strings.Contains(log.String(), "12345678") {
		t.Errorf("a secret is in the log: %s", log)
	}
	none, err := OpenCredentials("", slog.New(slog.DiscardHandler))
	if l, p := none.For("a:1"); err != nil || none.Reload() != nil || l != "" || p != "" {
		t.Error(l, p, err)
	}
}
