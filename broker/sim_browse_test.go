package broker

import (
	"strings"

	"github.com/understudy-mq/understudy/session/stomp/frame"
)

// simBrowser is what a client that browses must be shown, over all breaks: what was there when its browser was confirmed and is there when it ends,
// once, in one order.
type simBrowser struct {
	after string
	seen  map[string]bool
	due   map[string]bool
	known bool // what is due
}

func (b *simBrowser) frame() string {
	headers := []string{"id:b", "destination:/queue/both", "browser:true", "selector:odd = TRUE", "receipt:b"}
	if b.after != "" {
		headers = append(headers, frame.HeaderBrowseAfter+":"+b.after)
	}
	return text("SUBSCRIBE", headers...)
}

func (a *actor) browse() {
	if a.browser == nil && a.peer != nil {
		a.browser = &simBrowser{seen: map[string]bool{}}
		a.feed(a.browser.frame())
	}
}

// waiting is what a browser of /queue/both would be shown now, if that was its end.
func (w *world) waiting(end uint64) map[string]bool {
	all := map[string]bool{}
	if q := w.store.queues["/queue/both"]; q != nil {
		q.each(func(at slot) {
			m := w.log.content(at)
			if odd, _ := m.Header("odd"); m.state != done && m.pos <= end && string(odd) == "true" {
				all[string(m.data[m.split:])] = true
			}
		})
	}
	return all
}

func (a *actor) browsed(f *frame.Frame) {
	b, body := a.browser, string(f.Body)
	if end, ok := f.Get("browser"); ok {
		for body := range a.w.waiting(1 << 63) {
			if b.due[body] && !b.seen[body] {
				a.w.t.Fatalf("%s was there all the time and was not browsed by %s", body, a.session[:2])
			}
		}
		if string(end) != "end" || body != "" || !b.known {
			a.w.t.Fatalf("the browser ended with %q", f.Raw)
		}
		a.browser = nil
		a.feed(text("UNSUBSCRIBE", "id:b"))
		return
	}
	at := string(f.Value(frame.HeaderBrowse))
	if !strings.HasPrefix(at, "4.") || b.after != "" && atoi(at[2:]) <= atoi(b.after[2:]) || b.seen[body] || string(f.Value("odd")) != "true" {
		a.w.t.Fatalf("%s was browsed at %q, after %q", body, at, b.after)
	}
	b.after, b.seen[body] = at, true
}
