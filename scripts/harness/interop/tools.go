//go:build tools

package interop

// The suite that is compiled by name must stay in go.mod although no code imports it.
import _ "github.com/gmallard/stompngo"
