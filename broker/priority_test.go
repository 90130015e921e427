package broker

import (
	"fmt"
	"testing"
)

func TestHigherPriorityComesFirst(t *testing.T) {
	s := serving(t)
	p := s.connected("1.2")
	for i, priority := range []string{"4", "0", "9", "", "12", "x", "9"} {
		p.sent("/queue/a", fmt.Sprint(i), "priority:"+priority)
	}
	p.sent("/queue/a", "7", "persistent:false")
	order := []string{"2", "4", "6", "0", "3", "5", "7", "1"}
	b := s.subscriber("/queue/a", "auto", "browser:true")
	for _, body := range order {
		b.message(body)
	}
	b.message("", "browser", "end")
	c := s.subscriber("/queue/a", "client-individual")
	for _, body := range order {
		c.message(body)
	}
	c.leave()
	eventually(t, "it leaves", func() bool { return s.Status().Connections == 2 })
	some := s.subscriber("/queue/a", "client-individual", "selector:JMSPriority = 4")
	for _, body := range []string{"0", "3", "5", "7"} {
		some.message(body)
	}
	some.quiet()
	some.leave()
	p.sent("/queue/a", "8", "priority:9")
	s = s.restart()
	some = s.subscriber("/queue/a", "client-individual", "selector:JMSPriority <> 4")
	for _, body := range []string{"2", "4", "6", "8", "1"} {
		some.message(body)
	}
	all := s.subscriber("/queue/a", "client-individual")
	for _, body := range []string{"0", "3", "5"} {
		all.message(body)
	}
}

// A browser goes on behind a place in one priority with the rest of it and with the lower ones.
func TestBrowserGoesOnInItsPriority(t *testing.T) {
	s := serving(t)
	p := s.connected("1.2")
	for i, priority := range []string{"4", "9", "9", "0", "4"} {
		p.sent("/queue/a", fmt.Sprint(i), "priority:"+priority)
	}
	order := []string{"1", "2", "0", "4", "3"}
	c, _ := s.sidecar(sessionX, 1)
	c.subscribe("b", "/queue/a", "auto", "browser:true")
	places := []string{""}
	for _, body := range order {
		places = append(places, c.message(body).headers["understudy-browse"])
	}
	s = s.restart()
	for n, after := range places[1:] {
		c, _ = s.sidecar(sessionX, n+2)
		c.subscribe("b", "/queue/a", "auto", "browser:true", "understudy-browse-after:"+after)
		for i, body := range order[n+1:] {
			c.message(body, "understudy-browse", places[n+2+i])
		}
		c.message("", "browser", "end")
	}
}
