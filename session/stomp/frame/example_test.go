package frame_test

import (
	"fmt"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// A caller hands over what it has read, takes the frames, and keeps what was not consumed until more is there.
func Example() {
	read := []byte("CONNECT\naccept-version:1.2\nhost:example\n\n\x00\nSEND\ndestination:/queue/a\\cb\ncontent-length:5\n\nhe")
	var parser frame.Parser
	var f frame.Frame
	for range 2 {
		for len(read) > 0 {
			n, need, err := parser.Next(read, &f)
			if err != nil {
				fmt.Println("close the connection:", err)
				return
			}
			if n == 0 {
				fmt.Printf("%d octets more\n", need-len(read))
				break
			}
			switch f.Command {
			case frame.EOL:
				fmt.Println("heart-beat")
			case frame.Connect:
				fmt.Printf("CONNECT to %s\n", f.Value("host"))
				parser.Version = frame.V12 // negotiated: it counts from the next frame on
			default:
				destination, err := frame.Unescape(nil, f.Value("destination"), parser.Version)
				fmt.Printf("%v to %s: %q %v\n", f.Command, destination, f.Body, err)
			}
			read = read[n:]
		}
		read = append(read, "llo\x00"...)
	}
	// Output:
	// CONNECT to example
	// heart-beat
	// 4 octets more
	// SEND to /queue/a:b: "hello" <nil>
}
