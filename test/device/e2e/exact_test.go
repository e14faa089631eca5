package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// verdict is what a test needs of what `device-updater verify --json` says.
type verdict struct {
	Equal    bool
	Packages string
	Overlay  []struct{ Name, Version string }
	Files    struct {
		Damage  []struct{ Path, Kind string }
		Unowned []string
	}
}

func (d *fielded) verify() verdict {
	d.t.Helper()
	out, err := d.Exec(d.patient(), "sh", "-c", "device-updater verify --json && code=0 || code=$?; echo; echo status $code")
	out, status, _ := strings.Cut(out, "\nstatus ")
	var v verdict
	if err == nil {
		err = json.Unmarshal([]byte(out), &v)
	}
	if err != nil {
		d.t.Fatalf("cannot read the verdict: %v: %s", err, out)
	}
	if want := map[bool]string{true: "0", false: "1"}[v.Equal]; strings.TrimSpace(status) != want {
		d.t.Errorf("equal: %v, exit status %q", v.Equal, status)
	}
	return v
}

// awaitDeployment waits until deployment n is committed and nothing is under way.
func (d *fielded) awaitDeployment(n int) {
	d.t.Helper()
	d.await("the commit of a deployment", func() bool {
		if d.phase() == "FAILED" {
			d.t.Fatalf("it failed: %+v", d.journal()[len(d.journal())-1])
		}
		return d.committed() == n && d.phase() == "IDLE" && d.lastBoot().End == "" && d.lastBoot().Deployment == n
	})
	d.up()
}

// A developer's device that people tinkered with, has an own build on top, and
// comes by way of another release, ends as the device that was installed at
// once: with the same packages and the same files.
func TestLocalChangesAndPackagesLeaveNoTrace(t *testing.T) {
	t.Parallel()
	direct, d := newDevice(t), newDevice(t)
	direct.promote("4")
	direct.on()
	d.on()
	d.awaitDeployment(1) // its first look has found that it is what was assigned
	if v := d.verify(); !v.Equal {
		t.Errorf("fresh from the factory it is %+v", v)
	}
	// Programs of the base system and of the application, and what belongs to
	// nobody.
	if out, err := d.Exec(d.patient(), "sh", "-ec", `echo mine >/usr/bin/yes; chmod 4755 /usr/bin/tac; rm /usr/bin/wc
		echo x >>/usr/share/demo-app/version; mkdir /opt/left; echo x >/opt/left/file`); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	v := d.verify()
	var damaged []string
	for _, x := range v.Files.Damage {
		damaged = append(damaged, x.Path+" "+x.Kind)
	}
	if want := []string{"/usr/bin/tac permission", "/usr/bin/wc missing", "/usr/bin/yes content", "/usr/share/demo-app/version content"}; v.Equal || !slices.Equal(damaged, want) || !slices.Equal(v.Files.Unowned, []string{"/opt/left/"}) {
		t.Errorf("it says %+v", v)
	}

	own := app("demo-app", "1.5~local").config("/etc/demo-app.conf", "greeting = hello\n")
	deb, err := own.build(t.Context(), program(world.dir, "builder"), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(deb)
	if err == nil {
		err = os.WriteFile(filepath.Join(d.Top(), "state/root/own.deb"), content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := d.Exec(d.patient(), "device-updater", "try", "--dry-run", "/root/own.deb")
	if err != nil || !strings.Contains(out, "↑ demo-app 1.0 1.5~local\n") || !strings.Contains(out, "= coreutils ") {
		t.Errorf("the dry run says %v\n%s", err, out)
	}
	if out, err := d.Exec(d.patient(), "device-updater", "try", "/root/own.deb"); err != nil {
		t.Logf("the reboot cut its own command short: %v: %s", err, out)
	}
	d.awaitDeployment(2)
	if got := d.status().Overlay; !slices.Equal(got, []string{"demo-app 1.5~local"}) {
		t.Errorf("status names the overlay %v", got)
	}
	if v := d.verify(); v.Equal || len(v.Overlay) != 1 || len(v.Files.Damage) > 0 || v.Packages != "" {
		t.Errorf("with an overlay it says %+v", v)
	}

	// It stays on top of the next release.
	d.promote("2")
	d.awaitCommit("2")
	if out, err := d.Exec(d.patient(), "dpkg-query", "-W", "-f", "${Version}", "demo-app"); err != nil || out != "1.5~local" {
		t.Errorf("on release 2 it has version %q of its own build (%v)", out, err)
	}
	// On this one it cannot be: the application has another name there.
	d.promote("4")
	d.await("the reason why it waits", func() bool { return strings.Contains(d.status().WhyNot, "rejoin") })
	if why := d.status().WhyNot; !strings.Contains(why, "demo-app") || !strings.Contains(why, "Conflicts") {
		t.Errorf("it waits because %s", why)
	}
	if out, err := d.Exec(d.patient(), "device-updater", "rejoin"); err != nil {
		t.Logf("the reboot cut its own command short: %v: %s", err, out)
	}
	d.awaitCommit("4")
	direct.awaitCommit("4")
	if v := direct.verify(); !v.Equal {
		t.Errorf("the direct one is %+v", v)
	}
	if v := d.verify(); v.Equal || !slices.Equal(v.Files.Unowned, []string{"/opt/left/"}) || len(v.Files.Damage)+len(v.Overlay) > 0 {
		t.Errorf("what belongs to nobody is not told any more: %+v", v)
	}
	if err := os.RemoveAll(filepath.Join(d.Top(), "deployments", "4", "opt/left")); err != nil {
		t.Fatal(err)
	}
	if v := d.verify(); !v.Equal {
		t.Errorf("in the end it is %+v", v)
	}
	for _, x := range []*fielded{direct, d} {
		x.runs("4", "demo-service")
		x.off()
	}
	sameFiles(t, "tinkered with", filesOf(t, d.Machine, d.committed()), "direct", filesOf(t, direct.Machine, direct.committed()))
}
