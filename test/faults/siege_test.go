package faults

import (
	"path/filepath"
	"testing"
	"time"

	"aptfleet/test/faults/siege"
	"aptfleet/test/lossydisk"
	"aptfleet/test/order"
	"aptfleet/test/rig"
)

// besiege runs a siege; APTFLEET_SEED repeats the choices of an earlier one.
func besiege(t *testing.T, c siege.Config) *siege.Result {
	t.Helper()
	c.Seed = order.Seed(t)
	c.Say = t.Logf
	result, err := siege.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d deaths in %v; %d answers were checked, clients verified %d files", result.Kills, result.Took.Round(time.Second), result.Promises, result.Reads)
	return result
}

// TestSiege is a short one of each kind; make faults-server is a long one.
func TestSiege(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		fs    *lossydisk.FileSystem
		kills int
	}{
		{"kill -9 under load", nil, 18},
		{"power cuts on ext4", &lossydisk.Ext4, 12},
		{"power cuts on btrfs", &lossydisk.Btrfs, 12},
	} {
		t.Run(c.name, func(t *testing.T) {
			result := besiege(t, siege.Config{Program: program, Kills: c.kills, FileSystem: c.fs, Apt: true})
			// test/run.sh shows these lines although the test passes.
			for phase, n := range result.Tally.Phases() {
				t.Logf("%-28s during %-28s %d", c.name, phase, n)
			}
			if result.Lost+result.Mismatches > 0 {
				t.Errorf("%d answers did not hold, clients saw %d mismatches", result.Lost, result.Mismatches)
			}
			if missing := result.Tally.Missing(); len(missing) > 0 {
				t.Errorf("the server was never killed during %q", missing)
			}
			if result.Promises == 0 || result.Reads == 0 {
				t.Error("nobody uploaded, or nobody read")
			}
		})
	}
}

// TestSiegeFindsBrokenServers lets servers that leave out one thing prove that
// a siege is not blind, and so does a disk that ignores flushes.
func TestSiegeFindsBrokenServers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		tags string
		fs   *lossydisk.FileSystem
		deaf bool
	}{
		{"a server that syncs nothing", "faults break_fsync", &lossydisk.Ext4, false},
		{"a server that renames InRelease before the indices are there", "faults break_rename_order", nil, false},
		{"a disk that ignores flushes", "", &lossydisk.Ext4, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			broken := program
			if c.tags != "" {
				dir := t.TempDir()
				if err := rig.Build(t.Context(), dir, c.tags, "repo-manager"); err != nil {
					t.Fatal(err)
				}
				broken = filepath.Join(dir, "repo-manager")
			}
			result := besiege(t, siege.Config{Program: broken, Kills: 40, FileSystem: c.fs, Deaf: c.deaf, UntilFound: true})
			if result.Lost+result.Mismatches == 0 {
				t.Error("it was not found")
			}
		})
	}
}
