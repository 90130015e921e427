// Package interop runs client libraries that nobody here wrote against brokers that nobody here wrote, breaks something in the middle, and
// counts: what was confirmed and never arrived, what arrived twice or out of order, and what the client noticed.
//
// A [Cell] is one client library at one broker with one fault, through a sidecar or direct. Cells of one broker and fault run together, in
// a round, so that one fault strikes them all and the two ways can be compared. Client programs are written in their library's own language
// and say what happens to them in lines ([Event]); the count ([Check]) is a pure function of those lines. What a cell has to keep is the
// broker's [Promise]; direct cells have none.
//
// What it does not do: measure throughput, or test transactions, topics and acknowledgement modes beyond client-individual.
package interop
