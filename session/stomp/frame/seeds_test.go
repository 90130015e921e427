package frame

import "flag"

// session/sessiontest plays so many random conversations. go test ./session/... -seeds N gives the flag to every package, and one that did not
// know it would fail.
var _ = flag.Int("seeds", 0, "ignored here: see session/sessiontest")
