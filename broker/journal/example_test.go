package journal_test

import (
	"context"
	"fmt"
	"os"

	"github.com/understudy-mq/understudy/broker/journal"
)

// A store of notes: each is live until it is struck out.
func Example() {
	dir, err := os.MkdirTemp("", "notes")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	const note, strike = 1, 2
	durable := make(chan journal.LSN, 16)
	opt := journal.Options{
		Durable: func(through journal.LSN) { durable <- through },
		Failed:  func(err error) { panic(err) },
	}
	j, err := journal.Open(context.Background(), dir, opt, nil)
	if err != nil {
		panic(err)
	}
	where, _ := j.Append(journal.Entry{Type: note, Payload: []byte("buy milk"), Account: journal.Account{Live: 1}})
	j.Append(journal.Entry{Type: note, Payload: []byte("feed the cat"), Account: journal.Account{Live: 1}})
	last, _ := j.Append(journal.Entry{Type: strike, Payload: []byte("buy milk"), Account: journal.Account{Ends: []journal.Ending{{Segment: where.Segment}}}})
	for <-durable < last.LSN { // now we may tell others
	}
	j.Close()

	notes := map[string]journal.Segment{}
	j, err = journal.Open(context.Background(), dir, journal.Options{}, func(r journal.Record) (journal.Account, error) {
		if r.Type == note {
			notes[string(r.Payload)] = r.Segment
			return journal.Account{Live: 1}, nil
		}
		ended := notes[string(r.Payload)]
		delete(notes, string(r.Payload))
		return journal.Account{Ends: []journal.Ending{{Segment: ended}}}, nil
	})
	if err != nil {
		panic(err)
	}
	defer j.Close()
	fmt.Println("epoch", j.Epoch())
	for text := range notes {
		fmt.Println(text)
	}
	// Output:
	// epoch 2
	// feed the cat
}
