package journal

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Whoever waits for the lock learns where operators reach its owner, if LOCK has room for that; that it has none keeps nobody from owning the store.
func TestOwnerSaysWhereItIsReached(t *testing.T) {
	const admin = "http://127.0.0.1:9613"
	for name, c := range map[string]struct{ node, admin, want string }{
		"room":    {"a", admin, admin},
		"none":    {strings.Repeat("n", maxNode), "http://" + strings.Repeat("x", 400) + ":1", ""},
		"nothing": {"a", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				a, err := Open(t.Context(), dir, Options{Node: c.node, SegmentBytes: 8 << 10, Standing: func() Standing { return Standing{Admin: c.admin} }}, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer a.Close()
				ctx, cancel := context.WithCancel(t.Context())
				told := make(chan Owner, 8)
				ended := make(chan error)
				go func() {
					_, err := Open(ctx, dir, Options{Node: "b", SegmentBytes: 8 << 10, Waiting: func(o Owner) { told <- o }}, nil)
					ended <- err
				}()
				time.Sleep(time.Second)
				cancel()
				<-ended
				if o := <-told; o.Node != c.node || o.Admin != c.want {
					t.Errorf("the owner is %+v, want admin %q", o, c.want)
				}
			})
		})
	}
}
