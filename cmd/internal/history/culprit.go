package history

import (
	"cmp"
	"slices"
	"time"
)

// Culprit is the first operation, by the time of its end, up to which Queues cannot explain a history of one queue within that time, with those that ended before it and
// those that were under way; "" if there is none.
func Culprit(ops []Op, within time.Duration) string {
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b Op) int { return cmp.Compare(a.end, b.end) })
	upTo := func(n int) (list []Op) {
		for i, o := range ops {
			switch {
			case o.open && o.begin <= ops[n].end, i <= n && !o.open:
				list = append(list, o)
			case !o.open && o.begin <= ops[n].end && o.Kind != Receive && o.Kind != Drained:
				o.open = true
				list = append(list, o)
			}
		}
		return list
	}
	n, _ := slices.BinarySearchFunc(ops, true, func(o Op, _ bool) int {
		i := slices.Index(ops, o)
		if Queues(upTo(i), within).Err() != nil {
			return 1
		}
		return -1
	})
	if n == len(ops) {
		return ""
	}
	text := ""
	for _, o := range ops[max(0, n-15) : n+1] {
		text += "  " + o.String() + "\n"
	}
	for _, o := range upTo(n) {
		if o.open {
			text += "  under way: " + o.String() + "\n"
		}
	}
	for _, o := range ops {
		if o.Message == ops[n].Message {
			text += "  of that message: " + o.String() + "\n"
		}
	}
	return text
}
