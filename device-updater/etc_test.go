package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/merge"
	"aptfleet/device-updater/internal/update"
)

// TestWhatStatusSaysOfFiles: conflicts until they are resolved, what was done on
// a trial that went back, and what the last comparison found.
func TestWhatStatusSaysOfFiles(t *testing.T) {
	p := &program{sysroot: t.TempDir()}
	etc := filepath.Join(p.sysroot, "deployments/4/etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(etc, "a.aptfleet-new"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	v := update.View{
		Etc: &update.Etc{Deployment: 4, Conflicts: []merge.Conflict{
			{Path: "a", Kind: merge.Edited, Beside: "a.aptfleet-new"},
			{Path: "b", Kind: merge.Deleted, Beside: "b.aptfleet-new"},
			{Path: "passwd", Account: "app", Kind: merge.Dropped},
			{Path: "odd\x1b[2J", Kind: merge.Attributes},
		}},
		Edits:    []update.KeptEdits{{Deployment: 3, At: at, Files: "/sysroot/updater/edits/3/etc", Changed: []string{"x", "y"}, Deleted: []string{"z"}}},
		Verified: &update.Verified{Deployment: 4, At: at, Damage: 2, Unowned: 1},
	}
	p.unresolved(v.Etc)
	p.unresolved(nil)
	want := `conflict /etc/a: changed here and by the release; what is here stays; the release's version is /etc/a.aptfleet-new: merge it, or delete it
conflict /etc/passwd, app: changed here and deleted by the release; it stays
`
	got := etcLines(v)
	if !strings.HasPrefix(got, want) || strings.Contains(got, "\x1b") || strings.Contains(got, "/etc/b") {
		t.Errorf("got\n%s", got)
	}
	for _, line := range []string{
		"verified 2026-11-20T10:00:00Z, not equal to its release (files changed: 2, of no package: 1): device-updater verify\n",
		"edits    deployment 3 was given up at 2026-11-20T10:00:00Z with changes of /etc (2 changed, 1 deleted): they lie in /sysroot/updater/edits/3/etc\n",
	} {
		if !strings.Contains(got, line) {
			t.Errorf("it lacks %s", line)
		}
	}
	v.Verified.Equal = true
	if got := etcLines(v); !strings.Contains(got, "verified 2026-11-20T10:00:00Z, equal to its release\n") {
		t.Errorf("got\n%s", got)
	}
	for kind := range collided {
		if text := conflictText(merge.Conflict{Path: "a", Kind: kind}); strings.HasSuffix(text, ": ") {
			t.Errorf("nothing is said about %s", kind)
		}
	}
	if etcLines(update.View{}) != "" {
		t.Error("it speaks of nothing")
	}
}
