// Package cmd_test holds what is true of the whole source tree: who may import whom, and which packages must stay pure.
package cmd_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/understudy-mq/understudy"

// rule is what one package may import, beside the standard library.
type rule struct {
	ours  []string // packages of this module; "*" means all
	third []string // import path prefixes
	pure  bool     // no I/O, no clock, no locks: see impure
	why   string   // printed with each violation
}

// rules is the import table of ARCHITECTURE.md. A package that is not in it fails: decide where it belongs first.
var rules = map[string]rule{
	"health":              {why: "health decides from evidence alone and knows neither routes nor frames"},
	"health/gossip":       {ours: []string{"health"}, third: []string{"github.com/hashicorp/memberlist"}, why: "membership is hearsay for health, and nothing else"},
	"routing":             {ours: []string{"health"}, why: "routing knows no frames and dials nothing"},
	"routing/discover":    {ours: []string{"routing", "health"}, third: []string{"github.com/miekg/dns"}, why: "discovery only names candidates"},
	"session":             {pure: true, why: "the contract of a recorder must be provable in a simulator"},
	"session/relay":       {ours: []string{"session"}, third: []string{"golang.org/x/sys"}, why: "the one shell serves every protocol and knows none, and no routes"},
	"session/stomp":       {ours: []string{"session", "session/stomp/frame"}, pure: true, why: "a recorder is a pure state machine, proved with a cut at every octet"},
	"session/stomp/frame": {pure: true, why: "the codec is shared by recorder, broker and probe, and must drag in neither"},
	"session/sessiontest": {ours: []string{"session", "session/relay", "session/stomp", "session/stomp/frame"}, third: []string{"pgregory.net/rapid"},
		why: "the simulator drives recorders, and is imported by tests only"},
	"proxy/certtest":             {why: "certificates for tests stand alone"},
	"proxy":                      {ours: []string{"routing", "session/relay", "session", "health"}, why: "the proxy brings sessions to brokers and knows no protocol"},
	"broker/journal":             {third: []string{"golang.org/x/sys"}, why: "the journal knows records, not messages"},
	"broker/journal/journaltest": {ours: []string{"broker/journal"}, why: "it checks what tests leave, and is imported by tests only"},
	"broker/journal/fencemodel":  {pure: true, why: "a model of the fencing rules stands beside the code, and is used by its own tests only"},
	"broker/selector":            {pure: true, why: "a selector is a function of a text and headers"},
	"broker":                     {ours: []string{"broker/journal", "broker/selector", "session/stomp/frame"}, third: []string{"golang.org/x/crypto", "golang.org/x/sys"}, why: "the broker shares the codec with the sidecar, and nothing else"},
	"cmd/understudy":             {ours: []string{"*"}, third: []string{"github.com/urfave/cli/v2"}, why: "flags and wiring live here"},
	"cmd/internal/admin":         {why: "admin shows snapshots that it is handed"},
	"cmd/internal/overview":      {why: "the overview knows servers by what they show, and would else show what only this build has"},
	"cmd/internal/history":       {third: []string{"github.com/anishathalye/porcupine"}, why: "histories are judged by what clients saw, and know no broker; for tests only"},
	"cmd/internal/ops":           {ours: []string{"health", "session/stomp/frame"}, why: "what commands share"},
	"cmd/internal/demo":          {third: []string{"github.com/go-stomp/stomp/v3", "github.com/miekg/dns"}, why: "the demo looks at the product from outside, through its binary"},
}

// metricsModule may be imported by metrics.go of every package and by whoever passes a *metrics.Set on, but counted nowhere else.
const metricsModule = "github.com/VictoriaMetrics/metrics"

// forTests may be imported by _test.go files everywhere.
var forTests = []string{"pgregory.net/rapid", module + "/session/sessiontest", module + "/proxy/certtest", module + "/broker/journal/journaltest",
	module + "/broker/journal/fencemodel", module + "/cmd/internal/history"}

// impure are packages that a pure one must not import, and functions that it must not call.
var (
	impurePackages = []string{"net", "os", "sync", "syscall", "io/ioutil", "log", "context"}
	impureTime     = []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Sleep"}
)

// source is one parsed file.
type source struct {
	pkg, path string // relative to the module's root, with slashes
	test      bool
	file      *ast.File
	fset      *token.FileSet
}

func (s *source) imports() map[string]string {
	all := map[string]string{}
	for _, i := range s.file.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		name := path.Base(p)
		if i.Name != nil {
			name = i.Name.Name
		}
		all[p] = name
	}
	return all
}

// tree parses every Go file of the module.
func tree(t *testing.T, root string) []*source {
	t.Helper()
	var all []*source
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			nested := rel != "." && exists(filepath.Join(p, "go.mod"))
			if nested || d.Name() == "testdata" || rel != "." && (d.Name()[0] == '.' || d.Name()[0] == '_') {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		s := &source{pkg: path.Dir(rel), path: rel, test: strings.HasSuffix(p, "_test.go"), fset: token.NewFileSet()}
		s.file, err = parser.ParseFile(s.fset, p, nil, parser.SkipObjectResolution)
		all = append(all, s)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func exists(p string) bool {
	m, err := filepath.Glob(p)
	return err == nil && len(m) > 0
}

// violations checks sources against the rules, and says what is wrong and why it matters.
func violations(sources []*source) []string {
	var bad []string
	for _, s := range sources {
		r, known := rules[s.pkg]
		if !known && s.pkg != "cmd" {
			bad = append(bad, s.path+": package "+s.pkg+" is not in the import table: decide what it may import, and add it")
			continue
		}
		for p := range s.imports() {
			if why := forbidden(s, r, p); why != "" {
				bad = append(bad, s.path+" imports "+p+": "+why)
			}
		}
		if r.pure && !s.test {
			bad = append(bad, clocks(s)...)
		}
	}
	slices.Sort(bad)
	return bad
}

// forbidden says why a file must not import p, or "".
func forbidden(s *source, r rule, p string) string {
	if s.test && (slices.Contains(forTests, p) || p == module+"/"+s.pkg) {
		return ""
	}
	first, _, _ := strings.Cut(p, "/")
	switch rel, ours := strings.CutPrefix(p, module+"/"); {
	case ours && slices.Contains(forTests, p) && s.pkg != rel:
		return "this package is for tests only"
	case ours:
		if !slices.Contains(r.ours, rel) && !slices.Contains(r.ours, "*") {
			return r.why
		}
	case p == metricsModule:
		if r.pure {
			return "a pure package reports, it does not count"
		}
	case strings.Contains(first, "."):
		if !slices.ContainsFunc(r.third, func(prefix string) bool { return p == prefix || strings.HasPrefix(p, prefix+"/") }) {
			return "each third-party module has one place; " + r.why
		}
	case r.pure && !s.test && slices.ContainsFunc(impurePackages, func(i string) bool { return p == i || strings.HasPrefix(p, i+"/") }):
		return "this package is pure; " + r.why
	}
	return ""
}

// clocks finds calls that read or wait for the clock.
func clocks(s *source) []string {
	name, imported := s.imports()["time"]
	if !imported {
		return nil
	}
	var bad []string
	ast.Inspect(s.file, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == name && slices.Contains(impureTime, sel.Sel.Name) {
				bad = append(bad, s.fset.Position(sel.Pos()).String()+" uses time."+sel.Sel.Name+": time comes in through Out.Now, or replays could not be proved")
			}
		}
		return true
	})
	return bad
}

func TestImportTable(t *testing.T) {
	sources := tree(t, "..")
	for _, v := range violations(sources) {
		t.Error(v)
	}
	seen := map[string]bool{}
	for _, s := range sources {
		seen[s.pkg] = true
	}
	for _, pkg := range slices.Sorted(maps.Keys(rules)) {
		if !seen[pkg] && pkg != "session/sessiontest" {
			t.Errorf("the import table names package %s, which does not exist", pkg)
		}
	}
}

// Each way to break the table is found: a rule that nothing violates might be one that nothing can.
func TestImportTableCatches(t *testing.T) {
	for _, c := range []struct{ name, path, code, want string }{
		{"allowed", "routing/a.go", `import "` + module + `/health"`, ""},
		{"upwards", "health/a.go", `import "` + module + `/routing"`, "knows neither routes nor frames"},
		{"third party elsewhere", "proxy/a.go", `import "github.com/miekg/dns"`, "each third-party module has one place"},
		{"third party at home", "routing/discover/a.go", `import "github.com/miekg/dns"`, ""},
		{"prefix is not a match", "routing/discover/a.go", `import "github.com/miekg/dnsx"`, "one place"},
		{"network in a recorder", "session/stomp/a.go", `import "net"`, "this package is pure"},
		{"atomics in a recorder", "session/stomp/a.go", `import "sync/atomic"`, "this package is pure"},
		{"network in a recorder's test", "session/stomp/a_test.go", `import "net"`, ""},
		{"clock in a recorder", "session/stomp/a.go", `import "time"; var now = time.Now`, "uses time.Now"},
		{"renamed clock", "session/stomp/a.go", `import clock "time"; func f() { clock.Sleep(1) }`, "uses time.Sleep"},
		{"durations are no clock", "session/stomp/a.go", `import "time"; const d = time.Second`, ""},
		{"counting in a recorder", "session/a.go", `import "` + metricsModule + `"`, "does not count"},
		{"simulator in the product", "proxy/a.go", `import "` + module + `/session/sessiontest"`, "for tests only"},
		{"certificates of tests in the product", "cmd/understudy/a.go", `import "` + module + `/proxy/certtest"`, "for tests only"},
		{"simulator in a test", "session/stomp/a_test.go", `import "` + module + `/session/sessiontest"`, ""},
		{"property tests", "broker/a_test.go", `import "pgregory.net/rapid"`, ""},
		{"property tests in the product", "broker/a.go", `import "pgregory.net/rapid"`, "one place"},
		{"unknown package", "sessions/a.go", ``, "not in the import table"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, c.path, "package p\n"+c.code, 0)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(violations([]*source{{pkg: path.Dir(c.path), path: c.path, test: strings.HasSuffix(c.path, "_test.go"), file: f, fset: fset}}), "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// The metrics module is used where things are counted, in metrics.go; other files only pass a *metrics.Set on.
func TestMetricsHaveOnePlace(t *testing.T) {
	for _, s := range tree(t, "..") {
		name, imported := s.imports()[metricsModule]
		if !imported || s.test || path.Base(s.path) == "metrics.go" {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == name && sel.Sel.Name != "Set" && sel.Sel.Name != "NewSet" {
					t.Errorf("%s uses metrics.%s: only metrics.go counts, other files pass a *metrics.Set on", s.fset.Position(sel.Pos()), sel.Sel.Name)
				}
			}
			return true
		})
	}
}
