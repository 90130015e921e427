package main

import (
	"time"

	"github.com/understudy-mq/understudy/broker"
)

// brokerStatus is the broker's part of /status.
type brokerStatus struct {
	Node        string        `json:"node"`
	Listen      string        `json:"listen"`
	Connections int           `json:"connections"`
	Stores      []storeStatus `json:"stores"`
}

// storeStatus is the broker's share in one store.
type storeStatus struct {
	Name       string    `json:"name"`
	Dir        string    `json:"dir"`
	Own        bool      `json:"own"`
	Role       string    `json:"role"`
	Since      time.Time `json:"since"`
	UUID       string    `json:"uuid,omitempty"`
	Epoch      uint64    `json:"epoch,omitempty"`
	Owner      any       `json:"owner,omitempty"`
	Copy       any       `json:"copy,omitempty"` // a standby's
	Sessions   int       `json:"sessions"`
	Absent     int       `json:"absent"`
	Queues     int       `json:"queues"`
	Messages   int       `json:"messages"`
	Out        int       `json:"out"`
	Bytes      int64     `json:"bytes"`
	Damaged    int       `json:"damaged_queues,omitempty"`
	RecoveryMS float64   `json:"recovery_ms,omitempty"`
	Recovered  int       `json:"recovered_records,omitempty"`
	Copied     int       `json:"copied_records,omitempty"` // of those: while it stood by
	DiskFull   bool      `json:"disk_full,omitempty"`
	MemoryFull bool      `json:"memory_full,omitempty"`
	Error      string    `json:"error,omitempty"`
}

func describeBroker(s broker.Status) brokerStatus {
	d := brokerStatus{Node: s.Node, Listen: s.Addr, Connections: s.Connections}
	for _, store := range s.Stores {
		d.Stores = append(d.Stores, describeStore(store))
	}
	return d
}

func describeStore(s broker.StoreStatus) storeStatus {
	d := storeStatus{
		Name: s.Name, Dir: s.Dir, Own: s.Own, Role: string(s.Role), Since: s.Since, UUID: s.UUID, Epoch: s.Epoch, Sessions: s.Sessions,
		Absent: s.Absent, Queues: s.Queues, Messages: s.Messages, Out: s.Out, Bytes: s.Bytes, Damaged: s.Damaged, RecoveryMS: s.Recovery.Seconds() * 1e3, Recovered: s.Recovered,
		Copied: s.Copied,
	}
	if s.Role == broker.Standby && s.Owner.PID != 0 {
		d.Owner = map[string]any{"node": s.Owner.Node, "pid": s.Owner.PID, "epoch": s.Owner.Epoch, "silent_ms": s.Owner.Silent.Milliseconds()}
	}
	if s.Role == broker.Standby {
		d.Copy = map[string]any{"epoch": s.Copy.Epoch, "applied": s.Copy.Applied, "proved": s.Copy.Proved, "records": s.Copy.Records, "cold": s.Copy.Cold}
	}
	d.DiskFull, d.MemoryFull = s.DiskFull, s.MemoryFull
	if s.Err != nil {
		d.Error = s.Err.Error()
	}
	return d
}
