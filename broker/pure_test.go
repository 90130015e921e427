package broker

import "github.com/understudy-mq/understudy/session/stomp/frame"

func newParser() frame.Parser { return frame.Parser{Version: frame.V12} }

func mustSession(t string) sessionID {
	id, ok := parseSessionID([]byte(t))
	if !ok {
		panic(t)
	}
	return id
}
