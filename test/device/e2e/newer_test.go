package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"aptfleet/test/order"
	"aptfleet/test/rig"
)

// newer are updaters of the future, made of this one's source with another
// format of the journal: its records have a field that nobody knows yet, and
// the phase named here is called SETTLE.
var newer = []struct {
	version string
	renamed string // the phase
	hangs   bool   // in SETTLE
}{
	// What it leaves behind when a person goes back is a record of SETTLE.
	{"2.0", "REBOOT", false},
	{"2.1", "HEALTH", true},
}

// patch is a place in a file of the updater, which has it once, and what comes
// in its stead.
type patch struct{ file, from, to string }

func (p patch) apply(text []byte) ([]byte, error) {
	if bytes.Count(text, []byte(p.from)) != 1 {
		return nil, fmt.Errorf("cannot make a newer updater: %s has no %q", p.file, strings.TrimSpace(p.from))
	}
	return bytes.Replace(text, []byte(p.from), []byte(p.to), 1), nil
}

// buildNewer compiles them into dir/newer/<version>.
func buildNewer(ctx context.Context, dir string) error {
	source, err := filepath.Abs(filepath.Join(module, "device-updater/internal/journal"))
	if err != nil {
		return err
	}
	for _, n := range newer {
		patches := []patch{
			{"record.go", "\nconst Format = 1\n", "\nconst Format = 2\n"},
			{"record.go", "\ntype Record struct {\n", "\ntype Record struct {\n\tSettled     struct{ By string } `json:\"settled\"`\n"},
			{"record.go", "\tr.Format, r.Class = ", "\tr.Settled.By = \"" + n.version + "\"\n\tr.Format, r.Class = "},
			{"record.go", " Phase = \"" + n.renamed + "\"\n", " Phase = \"SETTLE\"\n"},
		}
		if n.hangs {
			// Like a program that catches no signal: systemd waits 90 s for one that
			// does, each time.
			const written = "\tfaultpoint.Hit(\"journal:\" + string(l.Phase))\n"
			patches = append(patches, patch{"journal.go", "\nimport (\n", "\nimport (\n\t\"os/signal\"\n"},
				patch{"journal.go", written, written + "\tif l.Phase == \"SETTLE\" {\n\t\tsignal.Reset()\n\t\tselect {}\n\t}\n"})
		}
		bin := filepath.Join(dir, "newer", n.version)
		if err := os.MkdirAll(bin, 0o755); err != nil {
			return err
		}
		replace := map[string]string{} // path of the source to that of what is compiled in its stead
		for _, p := range patches {
			path := filepath.Join(source, p.file)
			from := path
			if replace[path] != "" {
				from = replace[path]
			}
			text, err := os.ReadFile(from)
			if err != nil {
				return err
			}
			if text, err = p.apply(text); err != nil {
				return err
			}
			replace[path] = filepath.Join(bin, p.file)
			if err := os.WriteFile(replace[path], text, 0o644); err != nil {
				return err
			}
		}
		overlay, err := json.Marshal(map[string]any{"Replace": replace})
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(bin, "overlay.json"), overlay, 0o644); err != nil {
			return err
		}
		if err := rig.BuildUpdater(ctx, bin, "-tags", "nomsgpack", "-overlay", filepath.Join(bin, "overlay.json")); err != nil {
			return err
		}
	}
	return nil
}

// packUpdater builds the package of an updater that was compiled into bin.
func packUpdater(ctx context.Context, dir, bin, version string) (string, error) {
	return buildPackage(ctx, program(dir, "builder"), filepath.Join(module, "device-updater", "aptfleet.yaml"), version,
		filepath.Join(dir, "packages", "device-updater-"+version), "APTFLEET_BIN="+bin)
}

// writers returns in which format the records of a phase were written: 2 by a
// newer updater.
func (d *fielded) writers(phase string) (formats []int) {
	d.t.Helper()
	text, err := os.ReadFile(filepath.Join(d.Top(), "updater/journal"))
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var r struct {
			Phase  string
			Format int
		}
		if json.Unmarshal(line, &r) == nil && r.Phase == phase {
			formats = append(formats, r.Format)
		}
	}
	return formats
}

// updater returns the version of the updater that dpkg says is installed.
func (d *fielded) updater() string {
	d.t.Helper()
	out, err := d.Exec(d.patient(), "dpkg-query", "-W", "-f", "${Version}", "device-updater")
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

// The updater is a package like any other: the one that installs a release is
// not the one that tries it. The new one has a journal that the old one does
// not know, and every way back works.
func TestTheUpdaterUpdatesItself(t *testing.T) {
	t.Parallel()
	d := newDevice(t)
	d.on()
	if v := d.updater(); v != "1.0" {
		t.Fatalf("the device begins with updater %s", v)
	}
	d.promote("updater-newer")
	d.awaitCommit("updater-newer")
	if v := d.updater(); v != "2.0" {
		t.Errorf("the release has updater %s", v)
	}
	if installed, tried := d.writers("INSTALL"), d.writers("TRIAL"); !slices.Equal(installed, []int{1}) || !slices.Equal(tried, []int{2}) {
		t.Errorf("INSTALL was recorded by %v, TRIAL by %v; want the old and then the new one", installed, tried)
	}
	d.runs("5", "demo-app")

	// A person goes back: the last that the old updater finds in the journal is of
	// a phase that it does not know.
	if _, err := d.Exec(d.patient(), "device-updater", "rollback"); err != nil {
		t.Logf("the reboot cut its own command short: %v", err)
	}
	d.awaitCommit("1")
	if v := d.updater(); v != "1.0" {
		t.Errorf("after the rollback it has updater %s", v)
	}
	if tried := d.writers("TRIAL"); !slices.Equal(tried, []int{2, 1}) {
		t.Errorf("the trials were recorded by %v", tried)
	}
	if left := d.writers("SETTLE"); !slices.Equal(left, []int{2}) {
		t.Errorf("the new one left records of its own phase by %v", left)
	}
	d.runs("1", "demo-app")
	if out, err := d.Exec(d.patient(), "device-updater", "history"); err != nil || !strings.Contains(out, world.releases["updater-newer"].ID) {
		t.Errorf("its history: %v\n%s", err, out)
	}

	// Forward again, and back by a release that the new one installs.
	if _, err := d.Exec(d.patient(), "device-updater", "update", "--retry"); err != nil {
		t.Logf("the reboot cut its own command short: %v", err)
	}
	d.awaitCommit("updater-newer")
	d.promote("1")
	d.awaitCommit("1")
	if v := d.updater(); v != "1.0" || d.committed() == 1 {
		t.Errorf("it has updater %s in deployment %d", v, d.committed())
	}
	d.hasItsBOM("1")
}

// A new updater that hangs in a phase of its own is ended by PID 1, and the old
// one knows what to make of what it left.
func TestANewerUpdaterThatHangsGoesBackUnattended(t *testing.T) {
	if !order.Long() {
		t.Skip("long: make test-long runs it; other updaters hang, and one updates itself, in short runs")
	}
	t.Parallel()
	// One try is enough, and the good release after it needs its time.
	d, _ := shipBroken(t, "updater-stuck", func(d *fielded) { d.trial.Tries, d.trial.Timeout = 1, "40s" })
	if n := len(d.writers("SETTLE")); n == 0 {
		t.Error("it did not come to the phase in which it hangs")
	}
	if v := d.updater(); v != "1.0" {
		t.Errorf("it has updater %s", v)
	}
	d.saysWhyNot("updater-stuck", "ended from outside")
	// And the old one goes on.
	d.promote("2")
	d.awaitCommit("2")
	d.runs("2", "demo-app")
}

// mostResident is what the daemon may keep in memory when nothing happens, in
// kB.
const mostResident = 30_000

// resident is what the daemon has in memory, in kB.
func (d *fielded) resident() (now, peak int) {
	d.t.Helper()
	out, err := d.Exec(d.patient(), "sh", "-c", "cat /proc/$(systemctl show --property=MainPID --value aptfleet-updater.service)/status")
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, _ := strconv.Atoi(f[1]) // other lines have words
		switch f[0] {
		case "VmRSS:":
			now = n
		case "VmHWM:":
			peak = n
		}
	}
	if now == 0 || peak == 0 {
		d.t.Fatalf("the kernel does not say what the daemon has in memory:\n%s", out)
	}
	return now, peak
}

// TestTheIdleDaemonIsSmall: also once it has staged an update.
func TestTheIdleDaemonIsSmall(t *testing.T) {
	t.Parallel()
	d := newDevice(t, func(d *fielded) { d.reboot = "manual" })
	d.on()
	small := func(when string) {
		t.Helper()
		var now, peak int
		d.await("the daemon be small "+when, func() bool {
			now, peak = d.resident()
			return now < mostResident
		})
		t.Logf("%s the idle daemon has %d kB in memory, at most it had %d", when, now, peak)
	}
	small("after the boot")
	d.promote("2")
	d.await("the update be staged", func() bool { return d.phase() == "STAGED" })
	small("after staging")
}
