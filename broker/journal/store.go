package journal

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

const storeFile = "STORE"

// uuid names a store for ever, wherever its directory moves.
type uuid [16]byte

func newUUID() uuid {
	var u uuid
	rand.Read(u[:])
	u[6] = u[6]&0x0f | 0x40 // random, RFC 9562 version 4
	u[8] = u[8]&0x3f | 0x80
	return u
}

func (u uuid) String() string {
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

func parseUUID(s string) (u uuid, err error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != len(u) || uuid(b).String() != s {
		return u, fmt.Errorf("%q is no UUID", s)
	}
	return uuid(b), nil
}

// loadStore reads the UUID of the store, or makes it where the directory holds no log yet. The caller has the lock.
func loadStore(d *disk, used bool) (uuid, error) {
	u, err := readStore(d)
	if !errors.Is(err, fs.ErrNotExist) {
		return u, err
	}
	if used {
		return uuid{}, fmt.Errorf("%w: %s is missing, yet there are epochs or segments; restore it (a segment header holds the UUID)",
			ErrDamaged, d.at(storeFile))
	}
	u = newUUID()
	if err := d.replace(storeFile, []byte(u.String()+"\n")); err != nil {
		return u, fmt.Errorf("name the store: %w", err)
	}
	return u, nil
}

// readStore reads the UUID of the store.
func readStore(d *disk) (uuid, error) {
	b, err := os.ReadFile(d.at(storeFile))
	if err != nil {
		return uuid{}, fmt.Errorf("read store name: %w", err)
	}
	u, err := parseUUID(strings.TrimSpace(string(b)))
	if err != nil {
		return u, fmt.Errorf("%w: %s: %w", ErrDamaged, d.at(storeFile), err)
	}
	return u, nil
}
