package snapshots

import (
	"encoding/hex"
	"fmt"
	"io/fs"
	"strings"
)

// ID is the SHA-256 of a blob: a chunk of package stanzas or the text of a
// state.
type ID [32]byte

// String returns 64 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether id is the zero value, which names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText and UnmarshalText carry an ID through JSON and flags.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

// ParseID reads 64 lower-case hexadecimal digits.
func ParseID(s string) (ID, error) {
	var id ID
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(id) || strings.ContainsAny(s, "ABCDEF") {
		return ID{}, fmt.Errorf("cannot parse id %q: want 64 lower-case hexadecimal digits", s)
	}
	copy(id[:], raw)
	return id, nil
}

// NotFound is the error of a Chunks that does not have id. It wraps
// fs.ErrNotExist.
func NotFound(id ID) error { return fmt.Errorf("cannot find blob %s: %w", id, fs.ErrNotExist) }
