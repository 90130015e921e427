package brokers

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"text/template"
)

//go:embed conf
var confFiles embed.FS

// render writes the file conf/name, filled with data, to path.
func render(name, path string, data any) error {
	t, err := template.New(name).Option("missingkey=error").ParseFS(confFiles, "conf/"+name)
	if err != nil {
		return fmt.Errorf("configuration %s: %w", name, err)
	}
	var text bytes.Buffer
	if err := t.Execute(&text, data); err != nil {
		return fmt.Errorf("configuration %s: %w", name, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, text.Bytes(), 0o644)
}

// lacking returns those of the files that do not exist.
func lacking(files ...string) []string {
	var all []string
	for _, f := range files {
		if _, err := os.Stat(f); err != nil {
			all = append(all, f)
		}
	}
	return all
}

// lackingProgram returns what is lacking if no program of that name is in the PATH.
func lackingProgram(name string) []string {
	if _, err := exec.LookPath(name); err != nil {
		return []string{"the program " + name}
	}
	return nil
}

// jvm are arguments for a broker that has little to do: a small heap, and neither threads nor time for the collector and the compiler that
// a server would be given, unless Full is asked for.
func (opt Options) jvm() []string {
	if opt.Full {
		return []string{"-Xms64m", "-Xmx1g"} // as bin/env of ActiveMQ says
	}
	return []string{"-Xms32m", "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}
}
