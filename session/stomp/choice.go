package stomp

import "fmt"

// InDoubt is what becomes of a SEND or COMMIT whose fate an old connection took with it.
type InDoubt uint8

// Ways with what is in doubt. Where the broker settles it in any case (a paired one by its cursor, Artemis by duplicate ids) none of them matters.
const (
	InDoubtDefault InDoubt = iota // Lookup where marks can be left (ActiveMQ), Resend where the consumer's sidecar drops the copy, else Error
	InDoubtLookup                 // leave marks with what is sent and read them after a break; where that cannot be, as Error
	InDoubtResend                 // send again, stamped: at least once
	InDoubtError                  // tell the client that the outcome is unknown
)

// ParseInDoubt reads a flag: lookup, resend, error, or "" for the default of the broker's kind.
func ParseInDoubt(s string) (InDoubt, error) {
	switch s {
	case "":
		return InDoubtDefault, nil
	case "lookup":
		return InDoubtLookup, nil
	case "resend":
		return InDoubtResend, nil
	case "error":
		return InDoubtError, nil
	}
	return 0, fmt.Errorf("%q is none of lookup, resend and error", s)
}

// Replay is how much of a conversation is played to the next broker.
type Replay uint8

// Each includes the ones below it.
const (
	ReplayTx      Replay = iota // open transactions and COMMITs as well; the default
	ReplaySends                 // unconfirmed SENDs as well; a transaction that was open ends as rolled back
	ReplaySession               // login and subscriptions; a SEND that was not confirmed ends the session
	ReplayNone                  // nothing: the session ends with its broker
)

// ParseReplay reads a flag: none, session, sends or tx.
func ParseReplay(s string) (Replay, error) {
	switch s {
	case "tx", "":
		return ReplayTx, nil
	case "sends":
		return ReplaySends, nil
	case "session":
		return ReplaySession, nil
	case "none":
		return ReplayNone, nil
	}
	return 0, fmt.Errorf("%q is none of none, session, sends and tx", s)
}
