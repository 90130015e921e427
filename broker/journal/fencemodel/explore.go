package fencemodel

import (
	"fmt"
	"hash/maphash"
	"strings"
)

// system is what can be explored: states are values, so that whoever makes a successor cannot change where it came from.
type system[S any] interface {
	start() S
	// next calls emit for each step that anybody could take in s.
	next(s *S, emit func(step, S))
	// wrong says which rule s breaks, or "".
	wrong(s *S) string
	// key is the same for states that differ in nothing but the names of servers.
	key(s *S, b []byte) []byte
}

// step is what one server does; server 0 stands for the machine, or a client.
type step struct {
	what   string
	server int8
	arg    int8 // what it is about, as the step says; 0: nothing
}

func (s step) String() string {
	text := s.what
	if s.server > 0 {
		text = fmt.Sprintf("server %d %s", s.server, text)
	}
	if s.arg > 0 {
		text = fmt.Sprintf("%s %d", text, s.arg)
	}
	return text
}

// result is what an exploration found.
type result struct {
	states int
	steps  int // between them
	depth  int // of the longest of the shortest ways to a state
	whole  bool
	broken string // the first rule that is broken, after the fewest steps
	trace  []step
}

func (r result) String() string {
	end := "all"
	if !r.whole {
		end = "not all"
	}
	return fmt.Sprintf("%d states, %d steps, depth %d, %s", r.states, r.steps, r.depth, end)
}

func (r result) story() string {
	var b strings.Builder
	for i, s := range r.trace {
		fmt.Fprintf(&b, "%3d  %s\n", i+1, s)
	}
	return b.String()
}

// node is how a state was reached; the states themselves are not kept.
type node struct {
	from int32
	by   step
}

type reached[S any] struct {
	state S
	node  int32
}

// explore visits every state that can be reached, the nearest first, and stops at the first one that is wrong, or behind limit states (0: none). States are told apart by
// 64 bits of a hash with a random key: that one of some millions is taken for another has odds of one in a million, and other odds in each run.
func explore[S any](sys system[S], limit int) result {
	seed := maphash.MakeSeed()
	seen := map[uint64]struct{}{}
	var nodes []node
	var buf []byte
	r := result{whole: true}
	visit := func(s *S, from int32, by step, level []reached[S]) []reached[S] {
		buf = sys.key(s, buf[:0])
		h := maphash.Bytes(seed, buf)
		if _, known := seen[h]; known {
			return level
		}
		seen[h] = struct{}{}
		nodes = append(nodes, node{from, by})
		if why := sys.wrong(s); why != "" && r.broken == "" {
			r.broken, r.trace = why, wayTo(nodes)
		}
		return append(level, reached[S]{*s, int32(len(nodes) - 1)})
	}
	s := sys.start()
	level := visit(&s, -1, step{}, nil)
	for ; len(level) > 0 && r.broken == ""; r.depth++ {
		var next []reached[S]
		for i := range level {
			if limit > 0 && len(nodes) > limit {
				r.whole = false
				break
			}
			sys.next(&level[i].state, func(by step, s S) {
				r.steps++
				if r.broken == "" {
					next = visit(&s, level[i].node, by, next)
				}
			})
		}
		level = next
	}
	r.states = len(nodes)
	r.whole = r.whole && r.broken == ""
	return r
}

// wayTo is the way to the last node.
func wayTo(nodes []node) []step {
	var way []step
	for n := nodes[len(nodes)-1]; n.from >= 0; n = nodes[n.from] {
		way = append([]step{n.by}, way...)
	}
	return way
}
