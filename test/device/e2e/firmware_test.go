package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/test/microcontroller/bench"
	"aptfleet/test/order"
)

// firmware is the package with the firmware of the microcontroller for both
// revisions, its hook, and how the revision of the board is found out: its
// EEPROM says it. change edits the descriptor.
func firmware(flash []byte, version string, change ...string) (sample, error) {
	s := sample{name: "demo-firmware", version: version, arch: runtime.GOARCH}.
		file("/usr/lib/aptfleet/hardware.d/demo.yaml", "revision: [{script: /usr/lib/demo-firmware/revision}]\n").
		executable("/usr/lib/demo-firmware/revision", "#!/bin/sh\ntest ! -e /dev/eeprom || cat /dev/eeprom\n").
		executable("/usr/lib/demo-firmware/flash", string(flash))
	descriptor := "component: mcu\nhook: /usr/lib/demo-firmware/flash\nreversible: true\ntimeout: 20s\nimages:\n"
	for _, revision := range []string{"A1", "B2"} {
		image, err := bench.Image(revision, version)
		if err != nil {
			return sample{}, err
		}
		path := "/usr/lib/demo-firmware/" + revision + ".bin"
		s = s.file(path, string(image))
		descriptor += fmt.Sprintf("  - {revisions: [%s], image: %s, version: %q}\n", revision, path, version)
	}
	return s.file("/usr/lib/aptfleet/firmware.d/mcu.yaml", strings.NewReplacer(change...).Replace(descriptor)), nil
}

// firmwareReleases are releases that differ in the firmware that they bring.
// One of them is not healthy, and one has firmware that cannot be undone.
func firmwareReleases(flash string) ([]release, error) {
	hook, err := os.ReadFile(flash)
	if err != nil {
		return nil, err
	}
	good := app("demo-app", "8.0")
	unhealthy := good.executable("/usr/lib/aptfleet/health.d/required/demo-app", "#!/bin/sh\necho the pump does not answer\nexit 1\n")
	unhealthy.version = "8.0+unhealthy"
	var all []release
	for _, r := range []struct {
		name, version string
		app           sample
		change        []string
	}{
		{"firmware-1", "1.0", good, nil},
		{"firmware-2", "2.0", good, nil},
		{"firmware-unhealthy", "3.0", unhealthy, nil},
		{"firmware-fused", "4.0", good, []string{"reversible: true", "reversible: false"}},
	} {
		s, err := firmware(hook, r.version, r.change...)
		if err != nil {
			return nil, err
		}
		all = append(all, release{name: r.name, packages: []sample{product("8.0+"+r.version, "demo-app", "demo-firmware"), r.app, s}})
	}
	return all, nil
}

// boarded is a device on a board with a microcontroller.
type boarded struct {
	*fielded
	*bench.Bench
}

// newBoarded makes a device whose board is of a revision, which its EEPROM says
// and the factory, unless change lets it say something else. It runs release
// "1", which knows of no firmware.
func newBoarded(t *testing.T, revision string, change ...func(*boarded)) *boarded {
	t.Helper()
	b := &boarded{Bench: &bench.Bench{Program: program(world.dir, "microcontroller"), Dir: t.TempDir(), Revision: revision, Pace: 2 * time.Millisecond}}
	b.eeprom(t, revision)
	if err := b.Factory("0.9"); err != nil {
		t.Fatal(err)
	}
	b.fielded = newDevice(t, func(d *fielded) {
		d.revision, b.fielded = revision, d
		d.devices = map[string]string{"/dev/mcu": b.TTY(), "/dev/eeprom": filepath.Join(b.Dir, "eeprom")}
		for _, c := range change {
			c(b)
		}
	})
	// Before the machine is closed: its end would be one of the board, too.
	t.Cleanup(func() {
		if _, err := b.Flashed(); err != nil {
			t.Error(err)
		}
		if err := b.Bench.Cut(); err != nil {
			t.Error(err)
		}
	})
	b.power()
	return b
}

// eeprom writes what the board says about itself.
func (b *boarded) eeprom(t *testing.T, revision string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(b.Dir, "eeprom"), []byte(revision+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// power switches the board on, the microcontroller first.
func (b *boarded) power() {
	b.t.Helper()
	if err := b.On(b.patient()); err != nil {
		b.t.Fatal(err)
	}
	b.on()
}

// unplug cuts the power of the whole board. The processor goes first: it takes a
// moment, in which it would see the microcontroller go.
func (b *boarded) unplug() {
	b.t.Helper()
	b.cut()
	if err := b.Bench.Cut(); err != nil {
		b.t.Error(err)
	}
}

// flashed is what is in the flash.
func (b *boarded) flashed() string {
	b.t.Helper()
	got, err := b.Flashed()
	if err != nil {
		b.t.Fatal(err)
	}
	return got
}

// awaitFirmware waits until the device says of its microcontroller what it
// should, and checks that it is so.
func (b *boarded) awaitFirmware(has, wanted, why string) {
	b.t.Helper()
	var said []protocol.Firmware
	b.t.Logf("awaiting firmware %s", has)
	defer func() {
		if b.t.Failed() {
			b.t.Logf("it says %+v", said)
		}
	}()
	b.await(fmt.Sprintf("firmware %s of %s because of %q", has, wanted, why), func() bool {
		said = b.status().Firmware
		return len(said) == 1 && said[0].Component == "mcu" && said[0].Version == has && said[0].Wanted == wanted &&
			(said[0].Reason == "") == (why == "") && strings.Contains(said[0].Reason, why)
	})
	if got := b.flashed(); got != has {
		b.t.Errorf("the flash holds %q, want %s", got, has)
	}
	b.awaitKnown("its firmware", func(known protocol.Device) bool {
		return known.Report != nil && slices.Equal(known.Report.Firmware, said)
	})
}

// flash is one image that was put on the microcontroller, as the device tells.
type flash struct {
	At, Ended                time.Time
	From, To, Result, Reason string
}

// kept is what the device wrote down of them, also while it is off.
func (b *boarded) kept() []flash {
	b.t.Helper()
	var book struct{ Acts []flash }
	text, err := os.ReadFile(filepath.Join(b.Top(), "updater/firmware.json"))
	if err == nil {
		err = json.Unmarshal(text, &book)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return book.Acts
}

// flashes are those that the running device tells of, oldest first.
func (b *boarded) flashes() []flash {
	b.t.Helper()
	out, err := b.Exec(b.patient(), "device-updater", "firmware", "history", "--json")
	var all []flash
	if err == nil {
		err = json.Unmarshal([]byte(out), &all)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return all
}

// results are those of the flashes, oldest first.
func (b *boarded) results() string {
	b.t.Helper()
	var all []string
	for _, f := range b.flashes() {
		all = append(all, f.From+"→"+f.To+" "+f.Result)
	}
	return strings.Join(all, ", ")
}

func (b *boarded) updater(args ...string) string {
	b.t.Helper()
	out, err := b.Exec(b.patient(), append([]string{"device-updater"}, args...)...)
	if err != nil {
		b.t.Error(err)
	}
	return out
}

// One release has the firmware for both revisions of the board. It comes with
// the release, and goes with it, whoever goes back.
func TestFirmwareFollowsTheReleaseOnBothRevisions(t *testing.T) {
	for _, revision := range []string{"A1", "B2"} {
		t.Run(revision, func(t *testing.T) {
			t.Parallel()
			b := newBoarded(t, revision)
			for _, release := range []string{"1", "2"} {
				b.promote("firmware-" + release)
				b.awaitCommit("firmware-" + release)
				b.awaitFirmware(release+".0", release+".0", "")
			}
			// A release that is not healthy, after its firmware was flashed.
			b.promote("firmware-unhealthy")
			b.awaitRollback("firmware-unhealthy")
			b.awaitFirmware("2.0", "2.0", "")
			// A person goes back.
			b.updater("rollback")
			b.awaitCommit("firmware-1")
			b.awaitFirmware("1.0", "1.0", "")
			if got, want := b.results(), "0.9→1.0 done, 1.0→2.0 done, 2.0→3.0 done, 3.0→2.0 done, 2.0→1.0 done"; got != want {
				t.Errorf("it was flashed %s; want %s", got, want)
			}
			if out := b.updater("firmware"); out != "mcu\t1.0\t1.0\t\n" {
				t.Errorf("firmware prints %q", out)
			}
			if out := b.updater("status"); !strings.Contains(out, "firmware\tmcu 1.0\n") {
				t.Errorf("status prints %q", out)
			}
			if out := b.updater("firmware", "apply", "--dry-run"); out != "" {
				t.Errorf("there is something to do: %q", out)
			}
		})
	}
}

// The power fails in the middle of a flash, once in a trial and once on the way
// back: what is left only answers from its boot ROM, and the next start brings
// it to life.
func TestAPowerCutWhileFlashingIsMended(t *testing.T) {
	t.Parallel()
	b := newBoarded(t, "B2", func(b *boarded) { b.Pace, b.trial.Tries = 30*time.Millisecond, 9 })
	b.promote("firmware-1")
	b.awaitCommit("firmware-1")
	b.awaitFirmware("1.0", "1.0", "")
	begun := len(b.kept())
	cut := func() {
		t.Helper()
		b.awaitEvery(time.Millisecond, "half an image", func() bool { return len(b.kept()) > begun && b.flashed() == "half" })
		b.unplug()
		if got := b.flashed(); got != "half" {
			t.Fatalf("the flash holds %q: the moment is chosen badly", got)
		}
		begun = len(b.kept())
		b.power()
	}
	b.promote("firmware-2")
	cut()
	b.awaitCommit("firmware-2")
	b.awaitFirmware("2.0", "2.0", "")

	begun = len(b.kept())
	b.updater("rollback")
	cut()
	cut()
	b.awaitCommit("firmware-1")
	b.awaitFirmware("1.0", "1.0", "")
	if got := b.results(); strings.Count(got, "interrupted") != 3 {
		t.Errorf("it was flashed %s; want that three were cut off", got)
	}
}

// What cannot be undone is flashed once the release cannot be undone either.
func TestIrreversibleFirmwareWaitsForTheCommit(t *testing.T) {
	t.Parallel()
	b := newBoarded(t, "A1")
	b.promote("firmware-1")
	b.awaitCommit("firmware-1")
	b.promote("firmware-fused")
	b.awaitCommit("firmware-fused")
	b.awaitFirmware("4.0", "4.0", "")
	commit := slices.IndexFunc(b.journal(), func(r record) bool {
		return r.Phase == "COMMIT" && r.State == world.releases["firmware-fused"].State
	})
	all := b.flashes()
	// The book has whole seconds.
	if last := all[len(all)-1]; commit < 0 || last.To != "4.0" || last.At.Before(b.journal()[commit].At.Truncate(time.Second)) {
		t.Errorf("it was flashed %+v, and the release committed at %v", last, b.journal()[commit].At)
	}
	b.updater("rollback")
	b.awaitCommit("firmware-1")
	b.awaitFirmware("4.0", "1.0", "it cannot go back to 1.0: it has had 4.0, which cannot be undone")
}

// A device that is not certain which board it is on does not touch it, and says
// so; once it is certain, it does.
func TestNoFirmwareIsTouchedOnAnUncertainBoard(t *testing.T) {
	if !order.Long() {
		t.Skip("long: make test-long runs it; packages hardware and firmware try all of its reasons")
	}
	for _, c := range []struct {
		name, eeprom, factory, why string
	}{
		{"contradictory", "A1", "B2", `script /usr/lib/demo-firmware/revision says "A1", the factory "B2"`},
		{"unsupported", "C3", "C3", "hardware revision C3 is not supported: this release has firmware for A1, B2"},
		{"unknown", "", "", "nobody knows the hardware revision of this device"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBoarded(t, "B2", func(b *boarded) {
				b.revision = c.factory
				b.eeprom(b.t, c.eeprom)
			})
			b.promote("firmware-2")
			b.awaitCommit("firmware-2")
			b.await("the reason", func() bool {
				said := b.status().Firmware
				return len(said) == 1 && strings.Contains(said[0].Reason, c.why)
			})
			if out := b.updater("status"); !strings.Contains(out, c.why) {
				t.Errorf("status prints %q", out)
			}
			if out, err := b.Exec(b.patient(), "device-updater", "firmware", "apply"); err == nil || !strings.Contains(err.Error(), "cannot apply firmware to mcu: ") || out != "" || b.flashed() != "0.9" {
				t.Errorf("it was flashed: %q, %s (%v)", out, b.flashed(), err)
			}
			b.awaitKnown("why not", func(known protocol.Device) bool {
				return known.Report != nil && len(known.Report.Firmware) == 1 && strings.Contains(known.Report.Firmware[0].Reason, c.why)
			})
			b.off()
			b.eeprom(t, "B2")
			if err := os.WriteFile(filepath.Join(b.Top(), "identity/revision"), []byte("B2\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			b.power()
			b.awaitFirmware("2.0", "2.0", "")
		})
	}
}
