package frame

import (
	"regexp"
	"strconv"
	"strings"
)

// got is a frame with nothing left of the buffer it was cut from.
type got struct {
	command Command
	name    string
	headers []string // name, value, name, value, …
	body    string
	raw     string
	length  bool
}

func copied(f *Frame) got {
	g := got{command: f.Command, name: string(f.Name), body: string(f.Body), raw: string(f.Raw), length: f.HasContentLength}
	for name, value := range f.Headers {
		g.headers = append(g.headers, string(name), string(value))
	}
	return g
}

var (
	wholeCommand = regexp.MustCompile(`^[A-Za-z0-9_-]+\r?$`)
	partCommand  = regexp.MustCompile(`^[A-Za-z0-9_-]*\r?$`)
	digits       = regexp.MustCompile(`^[0-9]+$`)
	leadingEOLs  = regexp.MustCompile("^(\r?\n|\x00)+")
)

// reference reads a whole stream at once, with string functions and no state, and says which frames are in it and whether it ends
// in what can never become one. It is what the Parser is measured by.
func reference(in string, v Version, lim Limits) (frames []got, failed bool) {
	for in != "" {
		if eol := leadingEOLs.FindString(in); eol != "" {
			frames, in = append(frames, got{command: EOL, raw: eol}), in[len(eol):]
			continue
		}
		g, whole, failed := referenceFrame(in, v, lim)
		if failed || !whole {
			return frames, failed
		}
		frames, in = append(frames, g), in[len(g.raw):]
	}
	return frames, false
}

func referenceFrame(in string, v Version, lim Limits) (g got, whole, failed bool) {
	command, rest, ok := strings.Cut(in, "\n")
	if len(command) > or(lim.Command, DefaultCommand) {
		return g, false, true
	}
	if !ok {
		return g, false, !partCommand.MatchString(command)
	}
	if !wholeCommand.MatchString(command) {
		return g, false, true
	}
	g.name = strings.TrimSuffix(command, "\r")
	for c := Connect; c <= Error; c++ {
		if g.name == c.String() {
			g.command = c
		}
	}

	var lines []string
	for block := 0; ; {
		line, after, ok := strings.Cut(rest, "\n")
		if block+len(line) > or(lim.Block, DefaultBlock) || strings.Contains(line, "\x00") {
			return g, false, true
		}
		if !ok {
			return g, false, false
		}
		rest, block = after, block+len(line)+1
		if line == "" || line == "\r" {
			break
		}
		if lines = append(lines, line); len(lines) > or(lim.Headers, DefaultHeaders) {
			return g, false, true
		}
		if bad := g.checkLine(line, v, lim); bad {
			return g, false, true
		}
	}
	g.splitLines(lines, v)
	return g.cutBody(in, rest, lines, v, lim)
}

// checkLine is true for a line that may not stand there; it is called in the order of the lines.
func (g *got) checkLine(line string, v Version, lim Limits) bool {
	name, value, ok := strings.Cut(line, ":")
	if v == V10 {
		name = unpad(name)
	}
	if !ok || name == "" {
		return true
	}
	if name != "content-length" || g.length {
		return false
	}
	g.length = true
	n := unpad(value)
	if !digits.MatchString(n) {
		return true
	}
	size, err := strconv.ParseUint(n, 10, 63)
	mayHave := map[string]bool{"SEND": true, "MESSAGE": true, "ERROR": true}
	return err != nil || size > uint64(or(lim.Body, DefaultBody)) || size > 0 && g.command != Unknown && !mayHave[g.name]
}

func (g *got) splitLines(lines []string, v Version) {
	trim, cr := v == V10, v != V11
	if g.name == "CONNECT" || g.name == "STOMP" || g.name == "CONNECTED" {
		trim, cr = true, true
		for _, line := range lines {
			name, _, _ := strings.Cut(line, ":")
			if v == V10 {
				name = unpad(name)
			}
			if name == "accept-version" || name == "version" {
				trim = false
			}
		}
	}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		if trim {
			name, value = unpad(name), unpad(value)
		} else if cr {
			value = strings.TrimSuffix(value, "\r")
		}
		g.headers = append(g.headers, name, value)
	}
}

func (g got) cutBody(in, rest string, lines []string, v Version, lim Limits) (_ got, whole, failed bool) {
	end := strings.Index(rest, "\x00")
	if g.length {
		for _, line := range lines {
			name, value, _ := strings.Cut(line, ":")
			if name == "content-length" || v == V10 && unpad(name) == "content-length" {
				end, _ = strconv.Atoi(unpad(value))
				break
			}
		}
		switch {
		case len(rest) <= end:
			return g, false, false
		case rest[end] != 0, g.command == Unknown && strings.Contains(rest[:end], "\x00"):
			return g, false, true
		}
	} else if limit := or(lim.Body, DefaultBody); end > limit || end < 0 && len(rest) > limit {
		return g, false, true
	} else if end < 0 {
		return g, false, false
	}
	g.body, g.raw = rest[:end], in[:len(in)-len(rest)+end+1]
	return g, true, false
}

func unpad(s string) string { return strings.Trim(strings.TrimSuffix(s, "\r"), " \t") }
