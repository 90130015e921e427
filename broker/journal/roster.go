package journal

import "time"

const (
	absentAfter = 5 * showEvery // without a beat
	maxListen   = 2 * showEvery // of silence that one look can add; see maxStep
)

// sighting is one reading of a candidate's file that somebody holds; ok is false when it could not be read, which is neither life nor silence.
type sighting struct {
	file string
	card
	ok bool
}

// roster judges the other candidates by what is seen of their files. It is pure.
type roster struct {
	looked  time.Time
	members map[string]*member // by file
}

type member struct {
	card   card
	since  time.Time
	silent time.Duration
}

// look takes in all files that are held now. A candidate whose file is not among them is gone.
func (r *roster) look(now time.Time, seen []sighting) {
	step := min(now.Sub(r.looked), maxListen)
	r.looked = now
	was := r.members
	r.members = make(map[string]*member, len(seen))
	for _, s := range seen {
		m := was[s.file]
		switch {
		case m == nil && !s.ok:
			continue
		case m == nil, s.ok && s.ID != m.card.ID:
			m = &member{card: s.card, since: now}
		case !s.ok:
		case s.Beat != m.card.Beat:
			if m.silent >= absentAfter {
				m.since = now
			}
			m.card, m.silent = s.card, 0
		default:
			m.card = s.card
			m.silent += step
		}
		r.members[s.file] = m
	}
}

// alive lists those that show life: a process that is stopped holds its file, but does not beat.
func (r *roster) alive() []Candidate {
	list := make([]Candidate, 0, len(r.members)+1)
	for _, m := range r.members {
		if c := m.card; m.silent < absentAfter {
			list = append(list, Candidate{Node: c.Node, Standing: c.Standing, Warm: c.Warm, Beat: c.Beat, Since: m.since})
		}
	}
	return list
}
