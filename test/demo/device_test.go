package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"aptfleet/test/device/bootcontrol"
)

// A trial that Ctrl-C has cut off has all its tries again; nothing else changes.
func TestATrialHasAllItsTriesAgain(t *testing.T) {
	for _, c := range []struct{ before, after []byte }{
		{bootcontrol.NewBlock("trial=2", "tries=0"), bootcontrol.NewBlock("trial=2", "tries=3")},
		{bootcontrol.NewBlock("trial=2", "tries=2"), bootcontrol.NewBlock("trial=2", "tries=3")},
		{bootcontrol.NewBlock("trial=", "tries="), bootcontrol.NewBlock("trial=", "tries=")},
		{[]byte("damaged"), []byte("damaged")},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, bootcontrol.TrialFile)
		if err := os.WriteFile(path, c.before, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := allTries(dir); err != nil {
			t.Error(err)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, c.after) {
			t.Errorf("%.40q became %.60q, %v", c.before, after, err)
		}
	}
	if err := allTries(t.TempDir()); err != nil {
		t.Errorf("a device that never had a trial: %v", err)
	}
}
