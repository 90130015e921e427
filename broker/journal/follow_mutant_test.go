package journal

import "testing"

// Faults of a warm copy, as mutants has those of the journal.
var followMutants = []mutant{
	{"follower reads what is whole, not what is proved", "TestFollowEverywhere", "trail.go", []string{
		"	return parseMark(f.slots[:n], f.epoch), nil\n", `	k := parseMark(f.slots[:n], f.epoch)
	if tip := f.trail[len(f.trail)-1]; tip.sc != nil && k.segment == tip.id && tip.epoch == f.epoch {
		st, _ := tip.file.Stat()
		sc := newScanner(tip.file, st.Size(), tip.place, nil)
		sc.off, sc.next = tip.sc.off, tip.sc.next
		for ok := true; ok; {
			_, _, ok, _ = sc.step()
		}
		if sc.next > k.lsn+1 {
			k.lsn, k.end = sc.next-1, sc.off
		}
	}
	return k, nil
`,
	}},
	{"tail not read behind the copy", "TestFollowEverywhere", "replay.go", []string{
		"	for sc.off < s.end { //", "	if r.copy != nil && r.copy.at.place == s.place {\n		sc.off, sc.next = s.end, s.last+1\n	}\n	for sc.off < s.end { //",
	}},
	{"tail read twice", "TestFollowEverywhere", "replay.go", []string{
		"		sc.off, sc.next = known.off, known.next\n	} else {\n		r.ledger", "	} else {\n		r.ledger",
	}},
	{"what was deleted before the copy began is visited", "TestFollowEverywhere", "follow.go", []string{
		"if slices.Contains(f.at.drops, m.id) {", "if false {",
	}},
	{"segments deleted unread are passed over, while following", "TestFollowTrouble", "trail.go", []string{
		"		if s.first != last+1 {\n", "		if false {\n",
		"	default:\n		return cut, nil,", "	case false:\n		return cut, nil,",
		"	if cut.first != tip.first {", "	if !ok && o.prev.place != tip.place {\n		cut, between = tip.sealed, manifest[i:]\n	}\n	if cut.first != tip.first {",
	}},
	{"later epochs not looked for", "TestFollowSuccession", "trail.go", []string{
		"	k, failed := f.successor()\n", "	k, failed := mark{}, error(nil)\n",
	}},
	{"repair not noticed while following", "TestFollowTrouble", "trail.go", []string{
		"	return k, mended(f.disk, f.epoch, k.epoch+1, places)\n", "	_ = places\n	return k, nil\n",
	}},
	{"repair not noticed at the take-over", "TestRepairMakesCopiesWorthless", "copied.go", []string{
		"	if err := mended(r.disk, c.epoch, r.ours, places); err != nil {", "	if err := error(nil); err != nil {",
	}},
	{"copy not forgotten when it is thrown away", "TestFollowPhantom", "follow.go", []string{
		"		f.reset()\n", "",
	}},
	{"copy not forgotten at the take-over", "TestFollowPhantom", "open.go", []string{
		"		j.opt.Reset()\n", "",
	}},
}

func TestFollowMutants(t *testing.T) { runMutants(t, followMutants) }
