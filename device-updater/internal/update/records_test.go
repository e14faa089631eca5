package update

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"aptfleet/internal/protocol"
)

// TestWhatPowerCutsLeave goes with the next start of an updater, but not what
// another process may be writing.
func TestWhatPowerCutsLeave(t *testing.T) {
	records, err := OpenRecords(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := records.PutHold(protocol.Hold{Reason: "x"}); err != nil {
		t.Fatal(err)
	}
	left := []string{
		".status.json.1.tmp", ".journal.2.tmp", ".firmware.json.3.tmp", "deployments/.4.json.4.tmp", "manifests/.4.5.tmp", "etc/.4.files.6.tmp", "seeded/.known.7.tmp",
		"apt/state/.status.8.tmp",
	}
	stay := []string{".hold.json.1.tmp", ".develop.json.1.tmp", ".verified.json.1.tmp", "hold.json", "logs/.4.1.tmp"}
	for _, name := range append(left, stay...) {
		if name == "hold.json" {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(records.path(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(records.path(name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := records.Sweep(); err != nil {
			t.Error(err)
		}
	}
	for _, name := range append(left, stay...) {
		if _, err := os.Lstat(records.path(name)); (err == nil) != slices.Contains(stay, name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestADamagedManifest is not believed, and not taken for one that is not there.
func TestADamagedManifest(t *testing.T) {
	records, err := OpenRecords(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	root := emptyRoot(t)
	if report, err := Compare(t.Context(), records, root, 4); err != nil || report.Recorded {
		t.Errorf("without a manifest: %+v, %v", report, err)
	}
	if err := os.WriteFile(records.Manifest(4), []byte("garbage\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Compare(t.Context(), records, root, 4); err == nil {
		t.Error("a damaged manifest was believed")
	}
}
