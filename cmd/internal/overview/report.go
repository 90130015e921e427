// Package overview makes one picture of many servers: it reads what each shows of itself on /status, and says of every store who serves it, who would
// take it over, and what is wrong.
//
// The types of a Report are what a broker writes and what is read here, so that the two cannot part. Merge and Print are pure; Gather asks. No server is believed
// about another where that one has spoken for itself: of several that say they serve a store the highest epoch is right, because an epoch is
// claimed once and a server that has lost its own learns of it last.
package overview

import "time"

// Report is what a process shows on /status, as far as it is read here. Broker is nil for a sidecar.
type Report struct {
	Process  Process       `json:"process"`
	Broker   *Broker       `json:"broker,omitempty"`
	Brokers  []Target      `json:"brokers,omitempty"`  // a sidecar's
	Sessions []Session     `json:"sessions,omitempty"` // a sidecar's
	Waiting  []WantedStore `json:"waiting_stores,omitempty"`
}

// Process is what every process says of itself.
type Process struct {
	Name     string    `json:"name"`
	PID      int       `json:"pid"`
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	Draining bool      `json:"draining"`
}

// Broker is a server of stores.
type Broker struct {
	Node        string  `json:"node"`
	Listen      string  `json:"listen"`
	Connections int     `json:"connections"`
	Stores      []Store `json:"stores"`
}

// Store is one server's share in one store.
type Store struct {
	Name        string      `json:"name"`
	Dir         string      `json:"dir"`
	Own         bool        `json:"own"`
	Role        string      `json:"role"` // standby, recovering, active, unreachable, failed or stopped
	Since       time.Time   `json:"since"`
	UUID        string      `json:"uuid,omitempty"`
	Epoch       uint64      `json:"epoch,omitempty"` // of the server's own service, 0 before
	Owner       *Holder     `json:"owner,omitempty"` // whom a standby waits for
	Copy        *Copy       `json:"copy,omitempty"`  // a standby's
	Candidates  []Candidate `json:"candidates,omitempty"`
	Sessions    int         `json:"sessions"`
	Absent      int         `json:"absent"`
	AbsentSince *time.Time  `json:"absent_since,omitempty"` // of the session that is absent longest
	Queues      int         `json:"queues"`
	Messages    int         `json:"messages"`
	Out         int         `json:"out"`
	Bytes       int64       `json:"bytes"`
	Damaged     int         `json:"damaged_queues,omitempty"`
	RecoveryMS  float64     `json:"recovery_ms,omitempty"`
	Recovered   int         `json:"recovered_records,omitempty"`
	Copied      int         `json:"copied_records,omitempty"` // of those: while it stood by
	DiskFull    bool        `json:"disk_full,omitempty"`
	MemoryFull  bool        `json:"memory_full,omitempty"`
	Takeovers   uint64      `json:"takeovers,omitempty"` // how often this process began to serve it
	Handovers   uint64      `json:"handovers,omitempty"` // how often it let go of it in good order
	Trouble     string      `json:"trouble,omitempty"`   // why it does not stand for the store now
	Again       *time.Time  `json:"again,omitempty"`     // when it tries next
	Error       string      `json:"error,omitempty"`     // what ended its share in the store
}

// Holder is who has a store, as somebody else sees it.
type Holder struct {
	Node     string `json:"node"`
	PID      int    `json:"pid"`
	Epoch    uint64 `json:"epoch"`
	Admin    string `json:"admin,omitempty"` // URL
	SilentMS int64  `json:"silent_ms"`       // how long it has shown no life; 0 while it does
}

// Copy is how far a standby's copy of a store is.
type Copy struct {
	Epoch   uint64 `json:"epoch"`
	Applied uint64 `json:"applied"`
	Proved  uint64 `json:"proved"` // by the owner, so far
	Records uint64 `json:"records"`
	Cold    string `json:"cold"` // why there is none
}

// Candidate is a server that stands for a store. A list of them is in the order in which they would take it over.
type Candidate struct {
	Node     string    `json:"node"`
	Own      bool      `json:"own,omitempty"`
	Serves   int       `json:"serves"` // stores, in all
	Load     int       `json:"load,omitempty"`
	Rank     int       `json:"rank,omitempty"`
	Warm     bool      `json:"warm"` // its copy is up to date
	Since    time.Time `json:"since"`
	Endpoint string    `json:"endpoint,omitempty"`
	Admin    string    `json:"admin,omitempty"` // URL
}

// Target is a broker as a sidecar sees it.
type Target struct {
	Group  string    `json:"group,omitempty"`
	Target string    `json:"target"`
	State  string    `json:"state"`
	Since  time.Time `json:"since"`
	Stores []struct {
		UUID  string `json:"uuid"`
		Name  string `json:"name"`
		Epoch uint64 `json:"epoch"`
		Stale bool   `json:"stale"`
	} `json:"stores,omitempty"`
}

// Session is a client of a sidecar.
type Session struct {
	Group  string `json:"group,omitempty"`
	State  string `json:"state"`
	Broker string `json:"broker,omitempty"`
}

// WantedStore is a store that a sidecar's clients wait for because nobody serves it.
type WantedStore struct {
	Group    string    `json:"group,omitempty"`
	Store    string    `json:"store"`
	Name     string    `json:"name,omitempty"`
	Sessions int       `json:"sessions"`
	Since    time.Time `json:"since"`
}
