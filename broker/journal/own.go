package journal

import (
	"fmt"
	"strings"
)

// Own says what a record of the journal itself holds. ok is false for one of the caller's.
func (r Record) Own() (kind, detail string, ok bool) {
	switch r.Type {
	case typeManifest:
		list, err := parseManifest(r.Payload)
		if err != nil {
			return "manifest", err.Error(), true
		}
		names := make([]string, len(list))
		for i, s := range list {
			names[i] = fmt.Sprintf("%d (records %d to %d)", s.id, s.first, s.last)
		}
		return "manifest", "older segments: " + listed(names), true
	case typeDrop:
		ids, err := parseDrop(r.Payload)
		if err != nil {
			return "drop", err.Error(), true
		}
		names := make([]string, len(ids))
		for i, id := range ids {
			names[i] = fmt.Sprint(id)
		}
		return "drop", "segments that may go: " + listed(names), true
	case typeLost:
		return "lost", "a repair gave up what was here", true
	}
	return "unknown", "", r.Type >= typeManifest
}

func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
