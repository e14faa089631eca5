// Package order is what a run of tests was told from outside: whether it may take
// long, and whose choices it repeats.
package order

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// Long reports whether what takes long runs, too: APTFLEET_LONG, as `make
// test-long` sets it.
func Long() bool { return os.Getenv("APTFLEET_LONG") != "" }

// Seed returns that of the choices of a test, and logs it. It is the time, or
// APTFLEET_SEED, which repeats the choices of an earlier run.
func Seed(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("APTFLEET_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("cannot use APTFLEET_SEED=%s: it is a number", text)
		}
	}
	t.Logf("APTFLEET_SEED=%d", seed)
	return seed
}
