package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
	"aptfleet/repo-manager/internal/backup"
	"aptfleet/repo-manager/internal/release"
)

// backUp makes a backup through the API.
func (r *running) backUp(dir string) protocol.Change {
	r.t.Helper()
	change, err := r.api().CreateBackup(r.t.Context(), protocol.NewBackup{Dir: dir})
	must(r.t, err)
	change, err = r.api().Wait(r.t.Context(), change.ID, nil)
	must(r.t, err)
	if change.Status != "done" {
		r.t.Fatalf("the backup: %+v", change)
	}
	return change
}

// restoreTo runs the command, and serves what it restored.
func restoreTo(t *testing.T, dir string, s settings, flags ...string) *running {
	t.Helper()
	io, _, errs := fakeIO(false)
	if status := execute(t.Context(), io, append([]string{"restore", dir, "--data", s.Data}, flags...)); status != 0 {
		t.Fatalf("restore: exit %d, %s", status, errs)
	}
	return serve(t, s)
}

func withURL(data, url string) settings {
	s := local(data)
	s.URL = url
	return s
}

// Whoever the lost server knew, the restored one knows; what was good once or
// in one browser is not good again; and it says where it comes from.
func TestARestoredServerKnowsEverybody(t *testing.T) {
	dir := filepath.Join(shortDir(t), "backup")
	first := serve(t, withURL(filepath.Join(shortDir(t), "data"), "http://archive.example"))
	api := first.api()
	withProduct(t, first)
	_, err := api.CreateRepository(t.Context(), "demo", "apps", 1)
	must(t, err)
	_, err = api.CreateUser(t.Context(), "ann", []string{"admin"})
	must(t, err)
	token, err := api.CreateToken(t.Context(), protocol.NewToken{User: "ann", Label: "laptop"})
	must(t, err)
	link, err := api.CreateLoginLink(t.Context(), "ann")
	must(t, err)
	device := enrolled(t, first, "bench")
	made := first.backUp(dir)
	inRelease := filepath.Join("public", "demo", "dev", "dists", "trixie", "InRelease")
	offered, err := os.ReadFile(filepath.Join(first.settings.Data, inRelease))
	must(t, err)
	must(t, first.stop())

	r := restoreTo(t, dir, withURL(filepath.Join(shortDir(t), "data"), "http://archive.example"))
	if now, err := os.ReadFile(filepath.Join(r.settings.Data, inRelease)); err != nil || string(now) != string(offered) {
		t.Errorf("dev offers %q, %v; want %q", now, err, offered)
	}
	if r.key.Fingerprint() != first.key.Fingerprint() || strings.Contains(r.said.String(), "new archive") {
		t.Error("the key is another")
	}
	ann, err := client.New(client.Options{Server: r.listeners.addresses.Admin, Token: token.Secret})
	must(t, err)
	if users, err := ann.Users(t.Context()); err != nil || len(users) != 1 {
		t.Errorf("with her token ann sees %v, %v", users, err)
	}
	device.Restart(false)
	if status, err := device.CheckIn(t.Context(), r.public()); err != nil || status != http.StatusOK && status != http.StatusNoContent {
		t.Errorf("the device's check-in: %d, %v", status, err)
	}
	_, secret, _ := strings.Cut(link.URL, "?token=")
	if _, err := r.access.LinkUser(t.Context(), secret); release.CodeOf(err) != release.NoAccess {
		t.Errorf("the link: %v", err)
	}
	acts, err := r.engine.Acts(t.Context(), "", 2)
	must(t, err)
	if acts[0].Verb != "restore" || acts[0].By != loginName() || !strings.Contains(acts[0].Detail, "made by "+made.By) ||
		acts[1].Verb != "back up" || acts[1].Detail != "to "+dir {
		t.Errorf("the audit trail ends in %+v", acts)
	}
	change, err := r.api().Change(t.Context(), made.ID)
	if err != nil || change.Status != "done" {
		t.Errorf("the change of the backup: %+v, %v", change, err)
	}
	report, err := r.api().Check(t.Context(), nil)
	if err != nil || len(report.Findings) != 0 {
		t.Errorf("check: %+v, %v", report, err)
	}
	must(t, r.stop())

	// Under another URL stages are signed anew, with a later Date.
	other := restoreTo(t, dir, withURL(filepath.Join(shortDir(t), "data"), "http://other.example"))
	deadline := time.Now().Add(time.Minute)
	for text := string(offered); text == string(offered) || !strings.Contains(text, "\nSnapshots: http://other.example/demo/"); time.Sleep(5 * time.Millisecond) {
		now, err := os.ReadFile(filepath.Join(other.settings.Data, inRelease))
		must(t, err)
		if text = string(now); time.Now().After(deadline) {
			t.Fatalf("after a minute dev offers\n%s", text)
		}
	}
	if report, err := other.api().Check(t.Context(), nil); err != nil || len(report.Findings) != 0 {
		t.Errorf("check: %+v, %v", report, err)
	}
}

// The server makes backups by itself and keeps as many as it is told.
func TestAutomaticBackups(t *testing.T) {
	s := local(filepath.Join(shortDir(t), "data"))
	dir := filepath.Join(shortDir(t), "backup")
	s.Backup = backups{Dir: dir, Every: time.Second, Keep: 2}
	r := serve(t, s)
	seen := make(map[string]bool)
	for deadline := time.Now().Add(time.Minute); len(seen) < 4; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute there were the backups %v", seen)
		}
		d, err := backup.Open(dir)
		if err != nil {
			continue // none yet, or one is being made
		}
		all, err := d.List()
		must(t, err)
		must(t, d.Close())
		if len(all) > 2 {
			// The server prunes after its lock on the new one is free.
			t.Logf("for a moment there are %d", len(all))
		}
		for _, b := range all {
			if seen[b.ID] = true; b.Err != nil || b.By != "system" {
				t.Errorf("backup %s by %s: %v", b.ID, b.By, b.Err)
			}
		}
	}
	must(t, r.stop())
	d, err := backup.Open(dir)
	must(t, err)
	all, err := d.List()
	must(t, err)
	must(t, d.Close())
	if len(all) > 3 {
		t.Errorf("%d backups are left", len(all))
	}
}

func TestBackupCommandsWithoutServer(t *testing.T) {
	data, dir := filepath.Join(shortDir(t), "data"), filepath.Join(shortDir(t), "backup")
	must(t, serve(t, local(data)).stop())
	run := func(args ...string) (status int, out, errs string) {
		io, o, e := fakeIO(false)
		return execute(t.Context(), io, args), o.String(), e.String()
	}
	if status, out, errs := run("backup", "--offline", "--data", data, dir); status != 0 || len(out) != len("20261120T120000Z\n") || !strings.Contains(errs, "new: ") {
		t.Errorf("offline: exit %d, %q, %q", status, out, errs)
	}
	if status, out, _ := run("backup", "list", dir, "--json"); status != 0 || !strings.Contains(out, `"keys": true`) {
		t.Errorf("list: exit %d, %q", status, out)
	}
	for _, c := range []struct {
		args []string
		exit int
		says string
	}{
		{[]string{"backup", "--offline", "--data", data}, term.ExitUsage, "no directory"},
		{[]string{"backup", "--offline", "--data", data, data + "/x"}, term.ExitRefused, "within each other"},
		{[]string{"backup", "--offline", "--data", dir, t.TempDir()}, term.ExitFailed, "no data directory"},
		{[]string{"backup", "list", data}, term.ExitFailed, "there is none"},
		{[]string{"backup", "verify", dir, "1999"}, term.ExitFailed, "none of that id"},
		{[]string{"backup", "prune", dir, "--yes"}, term.ExitUsage, "--keep"},
		{[]string{"backup", "prune", dir, "--keep", "1"}, term.ExitUsage, "nobody is there to be asked"},
		{[]string{"restore", dir, "--data", data}, term.ExitRefused, "it holds"},
		{[]string{"restore", dir, "--data", data, "--dry-run"}, term.ExitRefused, "it holds"},
		{[]string{"restore", dir, "--data", dir + "/new"}, term.ExitRefused, "within each other"},
		{[]string{"restore", dir, "--data", data + "2", "--key", data + "/keys/archive.key"}, term.ExitUsage, "is in the backup"},
	} {
		if status, out, errs := run(c.args...); status != c.exit || out != "" || !strings.Contains(errs, c.says) {
			t.Errorf("%v: exit %d, %q, %q; want %d and %q", c.args, status, out, errs, c.exit, c.says)
		}
	}
	held := serve(t, local(filepath.Join(shortDir(t), "data")))
	if status, _, errs := run("backup", "--offline", "--data", held.settings.Data, dir); status != term.ExitLocked {
		t.Errorf("beside a server: exit %d, %q", status, errs)
	}
}

// A restored mirror is as hard to move back as the lost one: what it accepted
// last of each suite is in the backup.
func TestABackupHasWhatMirrorsAccepted(t *testing.T) {
	dir := filepath.Join(shortDir(t), "backup")
	first := serve(t, local(filepath.Join(shortDir(t), "data")))
	api := first.api()
	for _, name := range []string{"demo", "copy"} {
		_, err := api.CreatePipeline(t.Context(), protocol.Pipeline{Name: name, Distribution: "trixie", Architectures: []string{"amd64"}})
		must(t, err)
	}
	_, err := api.CreateRepository(t.Context(), "demo", "apps", 1)
	must(t, err)
	key, err := api.Key(t.Context())
	must(t, err)
	_, err = api.CreateMirror(t.Context(), "copy", "upstream", protocol.Mirror{All: true, Suites: []protocol.MirrorSuite{{
		URL: first.listeners.addresses.Public + "/demo/dev", Suite: "trixie", Components: []string{"apps"}, Keyring: []byte(key.Certificate),
	}}})
	must(t, err)
	change, err := api.UpdateMirror(t.Context(), "copy", "upstream", protocol.MirrorUpdate{})
	must(t, err)
	change, err = api.Wait(t.Context(), change.ID, nil)
	must(t, err)
	if change.Status != "done" {
		t.Fatalf("the update: %+v", change)
	}
	first.backUp(dir)
	must(t, first.stop())
	r := restoreTo(t, dir, local(filepath.Join(shortDir(t), "data")))

	accepted, err := filepath.Glob(filepath.Join(first.settings.Data, "mirrors/copy/upstream/InRelease*"))
	must(t, err)
	if len(accepted) != 1 {
		t.Fatalf("the mirror accepted %q", accepted)
	}
	want, err := os.ReadFile(accepted[0])
	must(t, err)
	got, err := os.ReadFile(filepath.Join(r.settings.Data, "mirrors/copy/upstream", filepath.Base(accepted[0])))
	if err != nil || string(got) != string(want) {
		t.Errorf("restored is %q, %v; want %q", got, err, want)
	}
}
