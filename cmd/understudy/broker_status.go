package main

import (
	"time"

	"github.com/understudy-mq/understudy/broker"
	"github.com/understudy-mq/understudy/cmd/internal/overview"
)

// describeBroker is the broker's part of /status.
func describeBroker(s broker.Status) overview.Broker {
	d := overview.Broker{Node: s.Node, Listen: s.Addr, Connections: s.Connections, Stores: []overview.Store{}}
	for _, store := range s.Stores {
		d.Stores = append(d.Stores, describeStore(store))
	}
	return d
}

// describeStore is the broker's share in one store.
func describeStore(s broker.StoreStatus) overview.Store {
	d := overview.Store{
		Name: s.Name, Dir: s.Dir, Own: s.Own, Role: string(s.Role), Since: s.Since, UUID: s.UUID, Epoch: s.Epoch, Sessions: s.Sessions,
		Absent: s.Absent, Queues: s.Queues, Messages: s.Messages, Out: s.Out, Bytes: s.Bytes, Damaged: s.Damaged, RecoveryMS: s.Recovery.Seconds() * 1e3, Recovered: s.Recovered,
		Copied: s.Copied, DiskFull: s.DiskFull, MemoryFull: s.MemoryFull, Takeovers: s.Takeovers, Handovers: s.Handovers,
		AbsentSince: moment(s.AbsentSince), Again: moment(s.Again),
	}
	for _, c := range s.Candidates {
		d.Candidates = append(d.Candidates, overview.Candidate{
			Node: c.Node, Own: c.Own, Serves: c.Serves, Load: c.Load, Rank: c.Rank, Warm: c.Warm, Since: c.Since, Endpoint: c.Endpoint, Admin: c.Admin,
		})
	}
	if s.Role == broker.Standby && s.Owner.PID != 0 {
		d.Owner = &overview.Holder{Node: s.Owner.Node, PID: s.Owner.PID, Epoch: s.Owner.Epoch, Admin: s.Owner.Admin, SilentMS: s.Owner.Silent.Milliseconds()}
	}
	if s.Role == broker.Standby {
		d.Copy = &overview.Copy{Epoch: s.Copy.Epoch, Applied: uint64(s.Copy.Applied), Proved: uint64(s.Copy.Proved), Records: s.Copy.Records, Cold: s.Copy.Cold}
	}
	if s.Trouble != nil && (s.Role == broker.Unreachable || s.Role == broker.Failed) {
		d.Trouble = s.Trouble.Error()
	}
	if s.Err != nil {
		d.Error = s.Err.Error()
	}
	return d
}

// moment is a time that may not be known.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
