package session

import (
	"bytes"
	"testing"
)

// Injected octets stay as they are until the last reference to them is dropped, whatever is injected meanwhile.
func TestInjectedOctetsStayWhileTheyAreReferredTo(t *testing.T) {
	var o Out
	var held []Buf
	want := []byte{}
	for i := range 2000 {
		p := bytes.Repeat([]byte{byte(i)}, i%97+1)
		if i == 1000 {
			p = make([]byte, 3*injectMost)
		}
		o.Append(Broker, p)
		want = append(want, p...)
		if i%7 == 0 {
			held = o.Take(Broker, held)
		}
	}
	held = o.Take(Broker, held)
	var got []byte
	for _, b := range held {
		got = append(got, b.Bytes()...)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("injected octets have changed")
	}
	for _, b := range held {
		b.Drop()
	}
	if o.inject.spare == nil {
		t.Error("no chunk was kept for the next burst")
	}
	o.Trim()
	if o.inject.chunk != nil || o.inject.spare != nil || o.legs[Broker].bufs != nil {
		t.Errorf("an idle session keeps %+v", o.inject)
	}
}

// A heart-beat that was written makes room for the next: an idle session allocates nothing and stays small.
func TestHeartBeatsAllocateNothing(t *testing.T) {
	var o Out
	var vec []Buf
	beat := func() {
		o.Append(Broker, []byte("\n"))
		vec = o.Take(Broker, vec[:0])
		vec[0].Drop()
	}
	beat()
	if n := testing.AllocsPerRun(1000, beat); n != 0 {
		t.Errorf("%v allocations for each", n)
	}
	o.Trim()
	if o.inject.chunk == nil || len(o.inject.chunk.Data) != injectFirst {
		t.Error("the chunk of the heart-beats is not kept, or has grown")
	}
}
