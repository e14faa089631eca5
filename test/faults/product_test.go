package faults

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"aptfleet/internal/protocol"
)

// productPhases are the moments of the computation of a bill of materials.
var productPhases = []string{"product:solved", "product:published", "product:kept"}

// TestKilledBills kills the server while it computes a bill of materials. After
// a restart it is there or is computed, it is the same, and nothing is left
// over.
func TestKilledBills(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	data := newData(t)
	s := start(t, data, "")
	s.pipeline("demo")
	s.mustUpload("demo", "app", "1.0", 100)
	if _, err := s.API.CreateProduct(ctx, "demo", protocol.Product{Name: "gateway", Architecture: "amd64", Packages: []string{"app"}}); err != nil {
		t.Fatal(err)
	}
	kills := make(map[string]int)
	for n, phase := range productPhases {
		s.mustUpload("demo", "other", string(rune('1'+n)), 100) // another state
		s.stop()
		s = start(t, data, phase)
		if _, err := s.API.BOM(ctx, "demo", "gateway", nil, "dev"); err == nil {
			t.Errorf("killed at %s: a bill was answered although the server died before", phase)
		}
		if !s.died() {
			t.Fatalf("the server did not die at %s:\n%s", phase, s.Log())
		}
		kills[phase]++
		s = start(t, data, "")
		s.mustBeClean()
		b, err := s.API.BOM(ctx, "demo", "gateway", nil, "dev")
		if err != nil {
			t.Fatalf("killed at %s: %v", phase, err)
		}
		text, err := os.ReadFile(filepath.Join(data, "public/demo/boms", b.SHA256))
		sum := sha256.Sum256(text)
		if err != nil || hex.EncodeToString(sum[:]) != b.SHA256 || len(b.Packages) != 1 {
			t.Errorf("killed at %s: the published bill is %q (%v)", phase, text, err)
		}
		if left, err := filepath.Glob(filepath.Join(data, "public/demo/boms/*")); err != nil || len(left) != n+1 {
			t.Errorf("killed at %s: %d bills are published, want %d (%v)", phase, len(left), n+1, err)
		}
		s.mustBeClean()
	}
	s.stop()
	report(t, "a bill of materials", productPhases, kills)
}
