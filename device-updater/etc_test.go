package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/merge"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/term"
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
	v := statusView{View: update.View{
		Etc: &update.Etc{Deployment: 4, Conflicts: []merge.Conflict{
			{Path: "a", Kind: merge.Edited, Beside: "a.aptfleet-new"},
			{Path: "b", Kind: merge.Deleted, Beside: "b.aptfleet-new"},
			{Path: "passwd", Account: "app", Kind: merge.Dropped},
			{Path: "odd\x1b[2J", Kind: merge.Attributes},
		}},
		Edits:    []update.KeptEdits{{Deployment: 3, At: at, Files: "/sysroot/updater/edits/3/etc", Changed: []string{"x", "y"}, Deleted: []string{"z"}}},
		Verified: &update.Verified{Deployment: 4, At: at, Damage: 2, Unowned: 1},
	}}
	p.unresolved(v.Etc)
	p.unresolved(nil)
	io := &term.IO{}
	got := said(v.etcFacts(io))
	for _, line := range []string{
		"conflict\t/etc/a: changed here and by the release; what is here stays (the release's: /etc/a.aptfleet-new)\n",
		"conflict\t/etc/passwd, app: changed here and deleted by the release; it stays\n",
		"\tmerge the release's version into the file that stayed, or delete it\n",
		"verified\t2026-11-20T10:00:00Z, not equal to its release (files changed: 2, of no package: 1); `device-updater verify` names them\n",
		"edits\tdeployment 3 was given up 2026-11-20T10:00:00Z with changes of /etc (2 changed, 1 deleted): they lie in /sysroot/updater/edits/3/etc\n",
	} {
		if !strings.Contains(got, line) {
			t.Errorf("it lacks %s", line)
		}
	}
	if strings.Contains(got, "\x1b") || strings.Contains(got, "/etc/b") {
		t.Errorf("got\n%s", got)
	}
	v.Verified.Equal = true
	if got := said(v.etcFacts(io)); !strings.Contains(got, "verified\t2026-11-20T10:00:00Z, equal to its release\n") {
		t.Errorf("got\n%s", got)
	}
	for kind := range collided {
		if text := conflictText(merge.Conflict{Path: "a", Kind: kind}); strings.HasSuffix(text, ": ") {
			t.Errorf("nothing is said about %s", kind)
		}
	}
	if said(statusView{}.etcFacts(io)) != "" {
		t.Error("it speaks of nothing")
	}
}
