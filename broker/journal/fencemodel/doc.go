// Package fencemodel enumerates what may happen between servers that fence each other over one store: it is a model of the journal's rules, small enough that
// every order of their steps can be tried, and not the journal itself. It is for tests only; nothing imports it.
//
// What is modelled (log.go, owner.go, follow.go). Two or three servers share a directory. A step is what one of them does to the disk, or decides, between two
// points where it might be stopped: see op, which names the function of the code that each step stands for. Between any two steps of one server come any
// steps of the others, in every order, so a pause of any length at every point (SIGSTOP, a slow disk, a suspended machine), and waking up
// from it, need no steps of their own. Anybody may claim the next epoch at any time: there is no lock in it, so what holds here holds with the lock in order,
// stolen (Lease), freed by a death (Strict, Kill), or broken. Processes die at every point and their unwritten records with them; the power fails at every
// point, and of all that was not synced each part is kept or lost; or each server is a machine, and what it wrote is seen by others when it was synced, or
// sooner. Owners append messages and, where there is a consumer, their ends; write batches record by record; begin segments; say that segments
// may go, and unlink them later, even when they know already that they were fenced; hand over. Candidates may keep a warm copy, step by step.
//
// What must be true in every state (logState.wrong, and violate where the steps are):
//
//   - What was confirmed is in the log of every owner of a later epoch that has read it. This is asked of those too that had read it before the
//     confirmation: so nobody acknowledges anything behind its successor's back.
//   - What was delivered is in it as well, for nothing is delivered before it could be confirmed.
//   - A message whose end was confirmed is alive for no later owner.
//   - Nothing leaves the log but by its end: no deletion takes a message, and no stale owner deletes a segment that a later one's log needs.
//   - An epoch has one holder.
//   - Owners agree on where a segment ends.
//   - A copy, when it is taken over and whenever the log goes on elsewhere, holds nothing that the log does not.
//   - No owner meets damage where there is none: no segment of its log is gone, and no mark says that more was acknowledged than there is.
//
// A second model (lock.go) is of LOCK alone, where a silent owner's store may be stolen. What it must keep is peace: an owner that has the LOCK which others
// see, and was never stopped, is not fenced by anybody who looked when that was so; and from every state on, if nobody is stopped or dies any more, those that run
// come to have one owner, the one of the highest epoch, with its LOCK in place. (When a thief and a new holder of the old lock claim in the same moment, one of
// them is fenced before it is settled: that costs another take-over and no more.)
//
// TestEveryFencingRuleIsNeeded and TestEveryLockRuleIsNeeded break the rules, one at a time, and the models must find what goes wrong.
//
// What it does not cover. Time: patience, beats and the order of candidates (package journal tests them). What direct clients see of a
// stale owner that says again what it said before it was stopped: that is the guard's (package broker), and cannot be excluded. Octets: headers, checksums, torn
// sectors, the search for damage, indexes, evacuation, a full disk, a repair. A record behind a hole that a power cut left counts as lost
// with it, as recovery has it. A new epoch's name is on the disk for everybody at once (network file systems that cache names are outside, as package
// journal says). Marks are read as they were put, or not at all. And of course: sizes. Every scope is enumerated to its end, and says nothing about larger ones.
package fencemodel
