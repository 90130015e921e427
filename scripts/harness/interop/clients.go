package interop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Client is a client library and the program that drives it.
type Client struct {
	Name string
	// Library is what it is called where it comes from; its version is pinned by go.mod, package-lock.json or the distribution.
	Library string
	// Numbered says that the program, or the library by itself, names a receipt by the message's number.
	Numbered bool
	// Window is how many receipts it may wait for: one where the library blocks until it has it.
	Window int

	command []string // after the interpreter's own look-up; %dir is the directory of the programs, %go where Go programs are built
	probe   []string // a command that succeeds when the library is there
	install string   // what scripts/install-clients does about it
	modules bool     // NODE_PATH is needed
}

// Clients are all that the table has, in its order.
func Clients() []Client {
	const deb = "apt-get install "
	return []Client{
		{Name: "go-stomp", Library: "github.com/go-stomp/stomp/v3", Window: 1, command: []string{"%go/gostomp"}},
		{Name: "python", Library: "python3-stomp", Numbered: true, Window: 16, command: []string{"/usr/bin/python3", "%dir/python/client.py"},
			probe: []string{"/usr/bin/python3", "-c", "import stomp"}, install: deb + "python3-stomp"},
		{Name: "ruby", Library: "ruby-stomp", Window: 16, command: []string{"/usr/bin/ruby", "%dir/ruby/client.rb"},
			probe: []string{"/usr/bin/ruby", "-e", "require 'stomp'"}, install: deb + "ruby-stomp"},
		{Name: "perl", Library: "Net::Stomp", Numbered: true, Window: 16, command: []string{"/usr/bin/perl", "%dir/perl/client.pl"},
			probe: []string{"/usr/bin/perl", "-MNet::Stomp", "-e", "1"}, install: deb + "libnet-stomp-perl"},
		{Name: "php", Library: "php-stomp", Numbered: true, Window: 1, command: []string{"/usr/bin/php", "%dir/php/client.php"},
			probe: []string{"/usr/bin/php", "-r", "exit(extension_loaded('stomp') && extension_loaded('pcntl') ? 0 : 1);"}, install: deb + "php-cli php-stomp"},
		{Name: "stompit", Library: "stompit", Numbered: true, Window: 16, command: []string{"node", "%dir/node/stompit.js"}, modules: true,
			probe: []string{"node", "-e", "require('stompit')"}, install: "npm ci, in a cache directory"},
		{Name: "stompjs", Library: "@stomp/stompjs with @stomp/tcp-wrapper", Numbered: true, Window: 16, command: []string{"node", "%dir/node/stompjs.js"}, modules: true,
			probe: []string{"node", "-e", "require('@stomp/stompjs'); require('@stomp/tcp-wrapper')"}, install: "npm ci, in a cache directory"},
	}
}

// FindClients returns those with the given names, all for none.
func FindClients(names []string) ([]Client, error) {
	all := Clients()
	if len(names) == 0 {
		return all, nil
	}
	var found []Client
	for _, name := range names {
		i := slices.IndexFunc(all, func(c Client) bool { return c.Name == name })
		if i < 0 {
			known := make([]string, len(all))
			for j, c := range all {
				known[j] = c.Name
			}
			return nil, fmt.Errorf("unknown client %q: it must be one of %s", name, strings.Join(known, ", "))
		}
		found = append(found, all[i])
	}
	return found, nil
}

// Programs is where the client programs are.
type Programs struct {
	Dir     string // scripts/harness/clients
	Built   string // Go programs
	Modules string // node_modules
}

// NodeModules is where scripts/install-clients puts the Node libraries.
func NodeModules() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w", err)
	}
	return filepath.Join(cache, "understudy", "clients", "node", "node_modules"), nil
}

// Build compiles what has to be compiled.
func (p Programs) Build(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(p.Built, "gostomp"), "./gostomp")
	cmd.Dir = p.Dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the client program of go-stomp: %w: %s", err, out)
	}
	return nil
}

// Missing is nil when the client can run; else its error says what to install.
func (p Programs) Missing(ctx context.Context, c Client) error {
	if c.probe == nil {
		return nil
	}
	cmd := exec.CommandContext(ctx, c.probe[0], c.probe[1:]...)
	cmd.Env = p.env(c)
	if err := cmd.Run(); err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return ctx.Err()
		}
		return fmt.Errorf("client %s: %s is not installed; run scripts/install-clients (%s)", c.Name, c.Library, c.install)
	}
	return nil
}

func (p Programs) command(c Client) *exec.Cmd {
	place := strings.NewReplacer("%dir", p.Dir, "%go", p.Built)
	words := make([]string, len(c.command))
	for i, w := range c.command {
		words[i] = place.Replace(w)
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = p.env(c)
	return cmd
}

// env keeps compiled Python out of the work tree and lets Node find its libraries outside of it.
func (p Programs) env(c Client) []string {
	env := append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	if c.modules {
		env = append(env, "NODE_PATH="+p.Modules)
	}
	return env
}
