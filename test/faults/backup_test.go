package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"aptfleet/internal/protocol"
)

// backupPhases are the moments of a backup, in order, and of which passage.
var backupPhases = []string{"backup:begun", "backup:planned", "backup:object", "backup:object:5", "backup:copied", "backup:synced", "backup:committed"}

// restorePhases are those of a restore.
var restorePhases = []string{"restore:begun", "restore:file", "restore:file:9", "restore:written", "restore:finished", "restore:synced"}

// backup has the server make a backup. died is true if there is no answer.
func (s *server) backup(dir string) (change protocol.Change, died bool) {
	s.t.Helper()
	change, err := s.API.CreateBackup(s.t.Context(), protocol.NewBackup{Dir: dir})
	if err == nil {
		ended := make(chan protocol.Change, 1)
		failed := make(chan error, 1)
		go func() {
			c, err := s.API.Wait(s.t.Context(), change.ID, nil)
			if err != nil {
				failed <- err
				return
			}
			ended <- c
		}()
		select {
		case change = <-ended:
			return change, false
		case err = <-failed:
		case <-s.Exited():
			return change, true
		}
	}
	select {
	case <-s.Exited():
		return change, true
	case <-time.After(patience): // its end is noticed a moment later
		s.t.Fatal(err)
		return
	}
}

// mustBackUp makes a backup that has to succeed.
func (s *server) mustBackUp(dir string) {
	s.t.Helper()
	if change, died := s.backup(dir); died || change.Status != "done" {
		s.t.Fatalf("a backup: died %v, %+v\n%s", died, change, s.Log())
	}
}

// tool runs a command without a server, which dies at a fault point if fault
// is not "".
func tool(t *testing.T, fault string, args ...string) (out string, state *os.ProcessState) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "APTFLEET_FAULT="+fault)
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(text), cmd.ProcessState
}

func mustTool(t *testing.T, args ...string) {
	t.Helper()
	if out, state := tool(t, "", args...); !state.Success() {
		t.Fatalf("repo-manager %s: %s\n%s", strings.Join(args, " "), state, out)
	}
}

// listBackups returns the ids of a backup directory, newest first.
func listBackups(t *testing.T, dir string) (ids []string) {
	t.Helper()
	out, state := tool(t, "", "backup", "list", dir, "--json")
	var all []protocol.Backup
	if err := json.Unmarshal([]byte(out), &all); err != nil || !state.Success() {
		t.Fatalf("backup list: %v\n%s", err, out)
	}
	for _, b := range all {
		if b.Error != "" || len(b.Lost) > 0 {
			t.Errorf("backup %s: %s, lost %v", b.ID, b.Error, b.Lost)
		}
		ids = append(ids, b.ID)
	}
	return ids
}

// TestKilledBackups kills the server at each moment of a backup. The one before
// is as it was, the one that died is there whole or not at all, and the next
// one succeeds.
func TestKilledBackups(t *testing.T) {
	t.Parallel()
	data, dir := newData(t), filepath.Join(t.TempDir(), "backup")
	s := start(t, data, "")
	s.pipeline("demo")
	s.mustBackUp(dir)
	kills := make(map[string]int)
	for n, phase := range backupPhases {
		s.mustUpload("demo", "app", fmt.Sprintf("1.%d", n), 3000)
		s.stop()
		before := listBackups(t, dir)
		s = start(t, data, phase)
		if _, died := s.backup(dir); !died || !s.died() {
			t.Fatalf("the server did not die at %s:\n%s", phase, s.Log())
		}
		kills[phase]++
		mustTool(t, "backup", "verify", dir)
		after := listBackups(t, dir)
		if want := len(before); len(after) != want && !(phase == "backup:committed" && len(after) == want+1) {
			t.Errorf("killed at %s: there are the backups %v, before there were %v", phase, after, before)
		}
		s = start(t, data, "")
		s.mustBeClean()
		s.mustBackUp(dir)
		mustTool(t, "backup", "verify", dir)
		if left, err := os.ReadDir(filepath.Join(dir, ".tmp")); err == nil && len(left) > 0 {
			t.Errorf("killed at %s: %d files are left behind", phase, len(left))
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	want := s.offered("demo", "dev")
	s.stop()
	report(t, "a backup", backupPhases, kills)

	// The newest one is what the server was.
	moved := newData(t)
	mustTool(t, "restore", dir, "--data", moved)
	s = start(t, moved, "")
	s.mustBeClean()
	if got := s.offered("demo", "dev"); len(got) != len(want) || got["app 1.6"] != want["app 1.6"] {
		t.Errorf("restored: %v, want %v", got, want)
	}
	s.stop()
}

// TestKilledRestores kills a restore at each moment. No server opens what it
// left; a second one makes it whole.
func TestKilledRestores(t *testing.T) {
	t.Parallel()
	data, dir := newData(t), filepath.Join(t.TempDir(), "backup")
	s := start(t, data, "")
	s.pipeline("demo")
	s.mustBackUp(dir)
	inRelease := s.read(filepath.Join(data, "public/demo/dev/dists/trixie/InRelease"))
	s.stop()
	kills := make(map[string]int)
	for _, phase := range restorePhases {
		moved := newData(t)
		out, state := tool(t, phase, "restore", dir, "--data", moved)
		if status, ok := state.Sys().(syscall.WaitStatus); !ok || !status.Signaled() {
			t.Fatalf("the restore did not die at %s: %s", phase, out)
		}
		kills[phase]++
		refused := launch(t, moved, "")
		<-refused.Exited()
		if refused.State().Success() || !strings.Contains(refused.Log(), "a restore into it was interrupted") {
			t.Fatalf("killed at %s: a server opened it: %s\n%s", phase, refused.State(), refused.Log())
		}
		mustTool(t, "restore", dir, "--data", moved)
		s := start(t, moved, "")
		s.mustBeClean()
		if now := s.read(filepath.Join(moved, "public/demo/dev/dists/trixie/InRelease")); string(now) != string(inRelease) {
			t.Errorf("killed at %s: after another restore dev offers\n%s\nwant\n%s", phase, now, inRelease)
		}
		s.stop()
		if t.Failed() {
			t.FailNow()
		}
	}
	report(t, "a restore", restorePhases, kills)
}

// The disk of the backups is full: the backup is refused, the server and
// earlier backups are as they were, and it goes on when there is room.
func TestFullBackupDisk(t *testing.T) {
	t.Parallel()
	disk := filepath.Dir(smallDisk(t, 48))
	s := start(t, newData(t), "")
	s.pipeline("demo")
	dir := filepath.Join(disk, "backup")
	s.mustBackUp(dir)
	s.mustUpload("demo", "large", "1.0", 20<<20)
	// The reserve of 32 MiB would not be left.
	change, died := s.backup(dir)
	if died || change.Status != "failed" || !strings.Contains(change.Error, "no space left on the disk of the backup directory") {
		t.Errorf("a backup that does not fit: died %v, %+v", died, change)
	}
	mustTool(t, "backup", "verify", dir)
	if ids := listBackups(t, dir); len(ids) != 1 {
		t.Errorf("there are the backups %v", ids)
	}
	s.mustUpload("demo", "small", "1.0", 100)
	if err := syscall.Mount("", disk, "", syscall.MS_REMOUNT, "size=96m"); err != nil {
		t.Fatal(err)
	}
	s.mustBackUp(dir)
	mustTool(t, "backup", "verify", dir)
	s.mustBeClean()
	s.stop()
}
