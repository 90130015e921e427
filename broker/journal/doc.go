// Package journal is the append-only segmented log under the paired broker, with its lock and its fencing.
package journal
