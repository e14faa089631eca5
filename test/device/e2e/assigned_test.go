package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/bom"
	"aptfleet/internal/protocol"
)

// hasItsBOM checks that dpkg has exactly what the server computed for the
// device's product in a release.
func (d *fielded) hasItsBOM(release string) {
	d.t.Helper()
	text, err := d.site.API.BOMText(d.t.Context(), pipeline, d.product, d.modules, world.releases[release].ID, "text")
	if err != nil {
		d.t.Fatal(err)
	}
	list, err := bom.Decode(text)
	if err != nil {
		d.t.Fatal(err)
	}
	var want []string
	for _, p := range list.Packages {
		want = append(want, "ii  "+p.String())
	}
	slices.Sort(want)
	if got := d.packages(); !slices.Equal(want, got) {
		d.t.Errorf("%s has not the bill of materials of product %s in release %s:\n%s", d.name, d.product, release, difference(want, got))
	}
}

// ofBoards makes a device of the other product.
func ofBoards(revision string, modules ...string) func(*fielded) {
	return func(d *fielded) { d.product, d.revision, d.modules = "board", revision, modules }
}

// version returns the installed version of a package, "" if it is not installed.
func (d *fielded) version(name string) string {
	for _, line := range d.packages() {
		if rest, ok := strings.CutPrefix(line, "ii  "+name+":all="); ok {
			return rest
		}
	}
	return ""
}

// stays checks that the device leaves what it runs alone for a few polls. It
// may look and download.
func (d *fielded) stays() {
	d.t.Helper()
	begun := func() (n int) {
		for _, r := range d.journal() {
			if r.Phase == "SNAPSHOT" {
				n++
			}
		}
		return n
	}
	boots, committed, before := len(d.Boots()), d.committed(), begun()
	time.Sleep(3 * time.Second)
	if d.committed() != committed || len(d.Boots()) != boots || begun() != before {
		d.t.Errorf("%s did not stay as it was: committed %d, phase %s, boots %+v", d.Name(), d.committed(), d.phase(), d.Boots())
	}
}

// awaitWhyNot waits until status gives a reason with the words in it.
func (d *fielded) awaitWhyNot(words string) {
	d.t.Helper()
	d.await("why not: "+words, func() bool { return strings.Contains(d.status().WhyNot, words) })
}

func TestModulesAndHardwareRevisionsDecideWhatABoardGets(t *testing.T) {
	t.Parallel()
	board, stranger := newDevice(t, ofBoards("A1", "lte")), newDevice(t, ofBoards("C3"))
	for _, d := range []*fielded{board, stranger} {
		d.on()
		d.promote("2")
	}
	stranger.awaitWhyNot("C3")
	known := stranger.awaitKnown("why the stranger stays", func(known protocol.Device) bool { return strings.Contains(known.WhyNot, "C3") })
	if known.Revision != "C3" || known.State != protocol.DeviceBehind {
		t.Errorf("the server says of the stranger: revision %q, %s", known.Revision, known.State)
	}
	stranger.stays()
	stranger.runs("1", "demo-app")
	// An operator knows better what it is: it comes along.
	revision := "B2"
	if _, err := stranger.site.API.SetDevice(t.Context(), stranger.name, protocol.SetDevice{Revision: &revision}); err != nil {
		t.Fatal(err)
	}
	board.awaitCommit("2")
	board.hasItsBOM("2")
	if modem := board.version("demo-modem"); modem != "2.0" {
		t.Errorf("the board with a modem has version %q of its package", modem)
	}
	stranger.awaitCommit("2")
	stranger.hasItsBOM("2")
	if modem := stranger.version("demo-modem"); modem != "" {
		t.Errorf("the board without a modem has version %q of its package", modem)
	}
}

func TestAnOperatorHoldsADeviceAndPinsItToAnOlderSnapshot(t *testing.T) {
	t.Parallel()
	d := newDevice(t, func(d *fielded) { d.how = bySerial })
	api := d.site.API
	d.on()
	before := d.packages()
	d.hold("it is at the fair")
	d.promote("2")
	d.await("what it would run", func() bool { return d.status().Wanted == world.releases["2"].State })
	d.awaitWhyNot("it is at the fair")
	d.stays()
	d.awaitKnown("that it is held", func(known protocol.Device) bool { return known.State == protocol.DeviceHeld })

	if _, err := api.UnholdDevice(t.Context(), d.name); err != nil {
		t.Fatal(err)
	}
	d.awaitCommit("2")
	d.hasItsBOM("2")

	if _, err := api.PinDevice(t.Context(), d.name, protocol.PinDevice{Snapshot: world.releases["1"].ID, Reason: "acceptance"}); err != nil {
		t.Fatal(err)
	}
	d.awaitCommit("1")
	d.runs("1", "demo-app")
	d.hasItsBOM("1")
	if after := d.packages(); !slices.Equal(before, after) {
		t.Errorf("the packages are not those of before:\n%s", difference(before, after))
	}
	d.promote("4")
	d.stays()
	d.awaitKnown("that all is as the pin says", func(known protocol.Device) bool {
		return known.State == protocol.DeviceOK && known.Pin != nil && known.Should.Snapshot == world.releases["1"].ID
	})
}
