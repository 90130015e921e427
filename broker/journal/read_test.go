package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

// TestRead reads records of all sizes again, from several goroutines, while segments come and go, and finds one that was changed on the disk.
func TestRead(t *testing.T) {
	dir := quickDir(t)
	s, err := reopen(t, dir, Options{SegmentBytes: 16 << 10}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	type written struct {
		at   Position
		text string
	}
	var list []written
	for i := range 200 {
		text := fmt.Sprintf("%d %s", i, strings.Repeat("x", i*i%9000))
		at, err := s.Append(Entry{Type: 1, Payload: []byte(text), Account: Account{Live: 1}})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, written{at, text})
	}
	s.durable(list[len(list)-1].at.LSN)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			var buf []byte
			for i := range list {
				w := list[(i*7+g*31)%len(list)]
				r, err := s.Read(w.at, buf)
				if err != nil || string(r.Payload) != w.text || r.Position != w.at || r.Size != len(w.text) || r.Type != 1 {
					t.Errorf("read %+v: %v, %d octets at %+v", w.at, err, r.Size, r.Position)
					return
				}
				buf = r.Payload[:0]
			}
		})
	}
	wg.Wait()

	hit := list[20].at
	name := place{s.Epoch(), hit.Segment}.name()
	b, err := os.ReadFile(s.disk.at(name))
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(b, []byte("20 xxx"))
	b[i] ^= 1
	if err := os.WriteFile(s.disk.at(name), b, 0o600); err != nil {
		t.Fatal(err)
	}
	defer func() {
		b[i] ^= 1
		if err := os.WriteFile(s.disk.at(name), b, 0o600); err != nil {
			t.Error(err)
		}
	}()
	_, err = s.Read(hit, nil)
	var damage *DamageError
	if !errors.As(err, &damage) || damage.Offset != hit.Offset || damage.From != hit.LSN || !strings.HasSuffix(damage.File, name) {
		t.Errorf("a changed record is read with error %v", err)
	}
	if _, err := s.Read(Position{LSN: 1, Segment: 9999}, nil); err == nil {
		t.Error("a segment that is not there can be read")
	}
	wrong := list[3].at
	wrong.LSN++
	if _, err := s.Read(wrong, nil); !errors.Is(err, ErrDamaged) {
		t.Errorf("a record with another number is read with error %v", err)
	}
}
