package proxy

import (
	"context"
	"errors"
	"net"
	"syscall"

	"github.com/understudy-mq/understudy/health"
	"github.com/understudy-mq/understudy/session/relay"
)

// What a recorder's errors may say through a method Code() string. Unknown codes count as a fault of the connection.
const (
	codeStandby    = "standby"     // it does not serve the store now
	codeFenced     = "fenced"      // it has lost the store, or its disk
	codeMoved      = "moved"       // it hands the store over
	codeWrongStore = "wrong-store" // it does not know the store
	codeWhichStore = "which-store" // it knows several, and none was named
	codeEpoch      = "epoch"       // it serves an epoch that is over
	codeVersion    = "version"     // it does not speak what the client was promised
	codeStale      = "stale-attempt"
	codeGap        = "gap"
	codeLostState  = "lost-state"
	codeError      = "error" // it refuses this client, in its own words
	codeTLS        = "tls"   // it could not be brought to TLS
)

// code is the word that err carries, "" if none.
func code(err error) string {
	var coded interface{ Code() string }
	if errors.As(err, &coded) {
		return coded.Code()
	}
	return ""
}

// endCode is the word for how a session ended, "" for an orderly end.
func endCode(err error) string {
	var end *relay.EndError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &end):
		return end.Code
	}
	return "fault"
}

// judge says what the end of a leg tells of its target. ok is false when it tells nothing of who is alive: the broker answered, and what
// is wrong lies between it and this session; a probe will find out what concerns others too.
func judge(err error, wasLive bool) (kind health.Kind, ok bool) {
	switch code(err) {
	case codeStandby, codeFenced, codeMoved:
		return health.NotServed, true // that store: the target stays good for its others
	case codeWrongStore, codeWhichStore, codeEpoch, codeVersion, codeStale, codeGap, codeLostState, codeError:
		return 0, false
	}
	if errors.Is(err, context.Canceled) {
		return 0, false // we left
	}
	var alert *net.OpError
	switch {
	case wasLive:
		return health.ConnLost, true
	case errors.As(err, &alert) && alert.Op == "remote error":
		return health.TLSFailed, true // a broker that wants a client certificate says so only after the handshake [RFC 8446, 4.4.2.4]
	}
	return health.HandshakeFailed, true
}

// ours: a dial that failed for want of something on this machine says nothing of the broker.
func ours(err error) bool {
	for _, e := range [...]error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL, syscall.EACCES, syscall.EPERM, errBusy} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
