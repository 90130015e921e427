package ops

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// Limits of a file with credentials.
const (
	MaxCredentials = 1 << 20 // octets
	maxCredential  = 4 << 10 // octets of a login or a passcode
)

// Credentials are logins by broker, from a file that is read again when it changes. Nothing but the reader of a login ever gets to see one:
// no error, log line or status has it. Safe for concurrent use.
type Credentials struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	checked time.Time
	stamp   stamp
	list    []credential
	flaw    string
}

// credential is one entry of the file.
type credential struct {
	Broker   string `json:"broker"`
	Login    string `json:"login"`
	Passcode string `json:"passcode"`
}

// OpenCredentials reads a file that holds a JSON list of {"broker": "host:port", "login": "…", "passcode": "…"}. In a broker * stands for any
// characters; the first entry that fits counts. The path "" is a file without entries. What is wrong with a file is a UsageError.
func OpenCredentials(path string, log *slog.Logger) (*Credentials, error) {
	c := &Credentials{path: path, log: log}
	if path == "" {
		return c, nil
	}
	c.checked, c.stamp = time.Now(), stampOf(path)
	list, err := readCredentials(path)
	if err != nil {
		return nil, err
	}
	c.list = list
	c.warn()
	return c, nil
}

// Reload reads the file again. After an error everything stays as it was.
func (c *Credentials) Reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.path == "" {
		return nil
	}
	return c.reload()
}

func (c *Credentials) reload() error {
	c.checked, c.stamp = time.Now(), stampOf(c.path)
	list, err := readCredentials(c.path)
	if err != nil {
		if text := err.Error(); text != c.flaw {
			c.flaw = text
			c.log.Error("credentials cannot be read: the ones before stay in use", "error", err)
		}
		return err
	}
	c.list, c.flaw = list, ""
	c.log.Info("credentials were read", "file", c.path, "entries", len(list))
	c.warn()
	return nil
}

// warn says that a file is open to more than its owner.
func (c *Credentials) warn() {
	if info, err := os.Stat(c.path); err == nil && info.Mode().Perm()&0o077 != 0 {
		c.log.Warn("the file with credentials can be read by others than its owner", "file", c.path, "mode", info.Mode().Perm().String(), "hint", "chmod 600")
	}
}

// For is the login for a broker that has these names (host:port); empty ones if the file has none, or for names that are empty.
func (c *Credentials) For(names ...string) (login, passcode string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.path != "" && time.Since(c.checked) >= checkFiles {
		c.checked = time.Now()
		if c.stamp != stampOf(c.path) {
			_ = c.reload() // it was logged, and the next change is the next occasion
		}
	}
	for _, entry := range c.list {
		for _, name := range names {
			if name != "" && fits(entry.Broker, name) {
				return entry.Login, entry.Passcode
			}
		}
	}
	return "", ""
}

// fits matches a pattern in which * stands for any characters, regardless of case.
func fits(pattern, name string) bool {
	parts := strings.Split(strings.ToLower(pattern), "*")
	name, ok := strings.CutPrefix(strings.ToLower(name), parts[0])
	if !ok || len(parts) == 1 {
		return ok && name == ""
	}
	last := len(parts) - 1
	for _, part := range parts[1:last] {
		at := strings.Index(name, part)
		if at < 0 {
			return false
		}
		name = name[at+len(part):]
	}
	return strings.HasSuffix(name, parts[last])
}

func readCredentials(path string) ([]credential, error) {
	bad := func(hint string) error { return &UsageError{"credentials", path, hint} }
	text, err := ReadSmall(path, MaxCredentials)
	if err != nil {
		return nil, bad("cannot be read: " + err.Error())
	}
	var list []credential
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil {
		return nil, bad(jsonFault(text, d, err) + `; it must be a list such as [{"broker": "mq1.example:61613", "login": "…", "passcode": "…"}]`)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, bad("has something behind the end of its list")
	}
	for i, c := range list {
		switch {
		case c.Broker == "" || c.Login == "":
			return nil, bad(fmt.Sprintf("entry %d lacks its broker or its login", i+1))
		case len(c.Login) > maxCredential || len(c.Passcode) > maxCredential:
			return nil, bad(fmt.Sprintf("entry %d has a login or passcode of more than %d octets", i+1, maxCredential))
		case strings.ContainsAny(c.Login+c.Passcode, "\x00\r\n"):
			return nil, bad(fmt.Sprintf("entry %d has an end of line or a NUL in its login or passcode, which STOMP cannot carry", i+1))
		}
	}
	return list, nil
}

// jsonFault says where text is wrong. The decoder's own words may quote a secret.
func jsonFault(text []byte, d *json.Decoder, err error) string {
	at := d.InputOffset()
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		at = syntax.Offset
	case errors.As(err, &kind):
		at = kind.Offset
	}
	at = min(max(at, 0), int64(len(text)))
	return fmt.Sprintf("is not what it should be in line %d", 1+bytes.Count(text[:at], []byte("\n")))
}
