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

	"aptfleet/test/rig"
)

// newer are updaters of the future, made of this one's source with another
// journal: its records have fields that nobody knows yet, and there is a phase
// SETTLE before each record of the phase named here.
var newer = []struct {
	version string
	before  string // phase
	then    string // Go: what it does after SETTLE
}{
	{"2.0", "Idle", ""},
	// Like a program that catches no signal: systemd waits 90 s for one that
	// does, each time.
	{"2.1", "Health", "signal.Reset()\n\t\tselect {}"},
}

// buildNewer compiles them into dir/newer/<version>.
func buildNewer(ctx context.Context, dir string) error {
	source, err := filepath.Abs(filepath.Join(module, "device-updater/internal/journal/journal.go"))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	for _, n := range newer {
		changed := text
		for _, c := range [][2]string{
			{"\nimport (\n", "\t\"os/signal\"\n"},
			{"\ntype Record struct {\n", "\tFormat  int               `json:\"format\"`\n\tSettled map[string]string `json:\"settled\"`\n"},
			{"\nfunc (j *Journal) Append(r Record) (Record, error) {\n", "\tr.Format, r.Settled = 2, map[string]string{\"by\": \"" + n.version + "\"}\n" +
				"\tif r.Phase == " + n.before + " {\n\t\tsettle := r\n\t\tsettle.Phase = \"SETTLE\"\n\t\tif _, err := j.Append(settle); err != nil {\n\t\t\treturn r, err\n\t\t}\n\t\t" + n.then + "\n\t}\n\t_ = signal.Reset\n"},
		} {
			if bytes.Count(changed, []byte(c[0])) != 1 {
				return fmt.Errorf("cannot make a newer updater: %s has no %q", source, strings.TrimSpace(c[0]))
			}
			changed = bytes.Replace(changed, []byte(c[0]), []byte(c[0]+c[1]), 1)
		}
		bin := filepath.Join(dir, "newer", n.version)
		if err := os.MkdirAll(bin, 0o755); err != nil {
			return err
		}
		replaced := filepath.Join(bin, "journal.go")
		overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{source: replaced}})
		if err != nil {
			return err
		}
		for path, content := range map[string][]byte{replaced: changed, filepath.Join(bin, "overlay.json"): overlay} {
			if err := os.WriteFile(path, content, 0o644); err != nil {
				return err
			}
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

// writers returns which kind of updater wrote the records of a phase: 2 for a
// newer one.
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
	if installed, tried := d.writers("INSTALL"), d.writers("TRIAL"); !slices.Equal(installed, []int{0}) || !slices.Equal(tried, []int{2}) {
		t.Errorf("INSTALL was recorded by %v, TRIAL by %v; want the old and then the new one", installed, tried)
	}
	if n := len(d.writers("SETTLE")); n == 0 {
		t.Error("the new one wrote no phase that the old one does not know")
	}
	d.runs("5", "demo-app")

	// A person goes back: the old updater finds the journal of the new one.
	if _, err := d.Exec(d.patient(), "device-updater", "rollback"); err != nil {
		t.Logf("the reboot cut its own command short: %v", err)
	}
	d.awaitCommit("1")
	if v := d.updater(); v != "1.0" {
		t.Errorf("after the rollback it has updater %s", v)
	}
	if tried := d.writers("TRIAL"); !slices.Equal(tried, []int{2, 0}) {
		t.Errorf("the trials were recorded by %v", tried)
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
	t.Parallel()
	d, _ := shipBroken(t, "updater-stuck", impatient)
	if n := len(d.writers("SETTLE")); n == 0 {
		t.Error("it did not come to the phase in which it hangs")
	}
	if v := d.updater(); v != "1.0" {
		t.Errorf("it has updater %s", v)
	}
	d.saysWhyNot("updater-stuck", "during SETTLE")
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
