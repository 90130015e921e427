// Package bench measures the product against what else could be in its place: the same load in alternating rounds of one run, as ratios.
//
// RunBroker compares the paired broker with single ActiveMQ and RabbitMQ brokers that hold durable messages on the same disk, and with the bare loop: what
// that disk and a group commit allow when nothing else is done.
//
// RunJournal compares the journal alone with the bare loop, and says how fast stores are read again and what a broker keeps in memory for each message.
//
// Run measures what the sidecar costs: the same STOMP load through a direct connection, HAProxy in TCP mode and understudy sidecar, against the same
// peers. There are three. The paired broker is the product's, as users run it; its own work hides much of a proxy's. Two answering peers do
// as good as nothing for a frame and touch no disk, so that what is seen is the proxy: one is a broker unknown to the sidecar, which
// answers every receipt, the other speaks the paired contract to it, one RECEIPT with a cursor for all that it has read. Whatever the peer,
// the client sees a RECEIPT for every SEND that asks for one, in every case.
//
// Figures of a proxy's CPU time are those of its process, from /proc. A frame, wherever something is counted per frame, is a message
// together with its answer: SEND and RECEIPT, or MESSAGE and ACK. A ratio is the median of the ratios of the single rounds, because a
// machine that is busy with other things is so for the neighbours in a round, too.
//
// The package knows sidecar and broker by their binary only, and the journal by its package.
package bench
