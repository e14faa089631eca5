package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/daemon"
	"aptfleet/device-updater/internal/rootfs"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

// TestVerify: each way in which a deployment is not its release.
func TestVerify(t *testing.T) {
	sysroot, _ := deviceFlags(t)
	p := &program{io: &term.IO{}, sysroot: sysroot}
	root := filepath.Join(sysroot, "deployments/1")
	put := func(name, content string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// What dpkg writes when it installs app.
	status := "Package: app\nStatus: install ok installed\nPriority: optional\nSection: misc\nMaintainer: A <a@aptfleet.example>\nVersion: 1\nArchitecture: all\nConffiles:\n /etc/app.conf 401b30e3b8b5d629635a5c613cdb7919\nDescription: x\n\n"
	put("var/lib/dpkg/status", status)
	put("var/lib/dpkg/info/app.list", "/.\n/usr\n/usr/share\n/usr/share/app\n/usr/share/app/data\n/etc\n/etc/app.conf\n")
	put("var/lib/dpkg/info/app.md5sums", "6137cde4893c59f76f005a8123d8e8e6  usr/share/app/data\n")
	put("usr/share/app/data", "data\n")
	put("etc/app.conf", "x\n")
	if out, err := exec.Command("dpkg", "--root="+root, "--verify").CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("the root is not what it should be: %v\n%s", err, out)
	}
	records, err := update.OpenRecords(filepath.Join(sysroot, "updater"))
	if err != nil {
		t.Fatal(err)
	}
	d := update.Deployment{ID: 1, Snapshot: "20261120T094500Z"}
	if d.Packages, err = update.InstalledPackages(root); err != nil {
		t.Fatal(err)
	}
	var manifest bytes.Buffer
	if err := rootfs.WriteManifest(t.Context(), &manifest, root, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(records.Manifest(1), manifest.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	verdictOf := func(d update.Deployment) (verdict, string) {
		t.Helper()
		if err := records.PutDeployment(d); err != nil {
			t.Fatal(err)
		}
		v, err := p.verifyDeployment(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := v.print(&out); err != nil {
			t.Fatal(err)
		}
		return v, out.String()
	}
	put("etc/app.conf", "local\n")
	v, out := verdictOf(d)
	want := `deployment 1 of 20261120T094500Z, 6 files of packages compared
configuration files that were changed here (allowed): 1
  /etc/app.conf  edited, of app
equal to its release
`
	if !v.Equal || out != want {
		t.Errorf("it says %+v\n%s", v, out)
	}
	for i := range 12 {
		put(fmt.Sprintf("opt/%02d\x1b", i), "x")
	}
	put("usr/share/app/data", "changed\n")
	put("usr/share/by-hand", "x")
	d.Overlay = update.Overlay{{Name: "app", Version: "1~local"}}
	d.Packages[0].Version = "2"
	v, out = verdictOf(d)
	for _, part := range []string{
		"packages: app:all=2 is not installed\n", "local packages on top of the release: 1\n  app 1~local\n",
		"/usr/share/app/data  content of app\n", "files that belong to no package: 2\n  /opt/\n  /usr/share/by-hand\n", "not equal to its release; ",
	} {
		if !strings.Contains(out, part) {
			t.Errorf("it does not say %q:\n%s", part, out)
		}
	}
	if v.Equal || v.Packages == "" {
		t.Errorf("%+v", v)
	}
	put("var/lib/dpkg/status", strings.Replace(status, "ok installed", "ok half-configured", 1))
	if v, _ := verdictOf(d); v.Audit == "" {
		t.Errorf("dpkg --audit says nothing: %+v", v)
	}
}

// TestTryAsksTheDaemon: absolute paths, who it was, and nothing else than files.
func TestTryAsksTheDaemon(t *testing.T) {
	_, flags := deviceFlags(t)
	asked := answering(t, flags, `{"done":true,"changes":[{"name":"app","old":"1","new":"1.2~local"}]}`)
	t.Setenv("SUDO_USER", "ann")
	deb := filepath.Join(t.TempDir(), "app.deb")
	if err := os.WriteFile(deb, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Dir(deb))
	for _, c := range []struct {
		args []string
		code int
		out  string
		want daemon.Request
	}{
		{[]string{"try", "app.deb", "--reboot"}, 0, "", daemon.Request{Act: daemon.Try, Files: []string{deb}, By: "ann", Reboot: true}},
		{[]string{"try", "--dry-run", "app.deb"}, 0, "↑ app 1 1.2~local\n", daemon.Request{Act: daemon.Try, Files: []string{deb}, By: "ann", DryRun: true}},
		{[]string{"rejoin"}, 0, "", daemon.Request{Act: daemon.Rejoin}},
		{[]string{"rejoin", "--dry-run", "--json"}, 0, "", daemon.Request{Act: daemon.Rejoin, DryRun: true}},
		{[]string{"try"}, term.ExitUsage, "", daemon.Request{}},
		{[]string{"try", "app"}, term.ExitFailed, "", daemon.Request{}},
	} {
		code, out, errOut := call(t, append(flags[:len(flags):len(flags)], c.args...)...)
		if code != c.code || c.out != "" && out != c.out {
			t.Errorf("%v: status %d, %q, %q", c.args, code, out, errOut)
		}
		switch got := asked(); {
		case c.code != 0 && len(got) > 0:
			t.Errorf("%v: asked %+v", c.args, got)
		case c.code == 0 && (len(got) != 1 || fmt.Sprint(got[0]) != fmt.Sprint(c.want)):
			t.Errorf("%v: asked %+v, want %+v", c.args, got, c.want)
		}
	}
}

func TestStatusShowsTheOverlay(t *testing.T) {
	at := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	out := piped(statusView{View: update.View{
		Overlay: update.Overlay{
			{Name: "app", Version: "1.2~local", File: "app.deb\x1b", By: "ann", At: at},
			{Name: "tool", Version: "1", File: "tool.deb", At: at},
		},
		Report: protocol.Report{
			Follow: "dev", Phase: "IDLE", Deployments: []protocol.Deployment{{ID: 1, Snapshot: "20261119T094500Z", Role: "booted"}},
			Failed: []protocol.Failure{{Snapshot: "20261120T094500Z", Overlay: "1f", Reason: "no boot", At: at}},
		},
	}}, at)
	for _, want := range []string{
		"has\t20261119T094500Z, with packages of its own on top\n",
		"failed\t20261120T094500Z + overlay, 2026-11-20T10:00:00Z: no boot\n",
		"overlay\tapp 1.2~local, from app.deb\\x1b by ann 2026-11-20T10:00:00Z\n" +
			"overlay\ttool 1, from tool.deb 2026-11-20T10:00:00Z\n" +
			"\tso it is not equal to its release; `device-updater rejoin` makes it so\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("it lacks %q:\n%s", want, out)
		}
	}
}
