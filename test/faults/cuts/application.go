package cuts

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// runsBefore is the release that a device runs when release n comes: of two in
// turn the second one is bad.
func runsBefore(n int) int { return max(1, (n-1)/2*2) }

// epochOf is that of the application's data in release n. Every other good
// release raises it, and each bad one.
func epochOf(n int) int {
	if n > 1 && n%2 == 1 {
		return epochOf(n-1) + 1
	}
	return 1 + (n+2)/4
}

// unitPlaces is where the state unit lies below the state: a directory, and a
// file beside others that are of no unit.
var unitPlaces = []string{"var-lib/ledger", "var-lib/app/index"}

// row is a file of the application, in the format of an epoch.
func row(epoch int, text string) string { return fmt.Sprintf("format %d\n%s", epoch, text) }

// application brings its data to its epoch, each file durably, and does not
// start with what a later one wrote.
const application = `#!/bin/sh
set -e
rm -f /var/lib/ledger/*.new /var/lib/app/index.new
for file in /var/lib/ledger/* /var/lib/app/index; do
	read -r word found <"$file"
	[ "$word" = format ] || { echo "$file is damaged"; exit 1; }
	[ "$found" -le EPOCH ] || { echo "cannot read format $found of $file"; exit 1; }
	[ "$found" -lt EPOCH ] || continue
	sed '1s/.*/format EPOCH/' "$file" >"$file.new"
	sync "$file.new"
	mv "$file.new" "$file"
done
`

// startApplication is what PID 1 runs between the state and the updater.
const startApplication = "/usr/bin/app"

// board is the hook of a microcontroller whose flash is a file on the disk: a
// page that was written and flushed survives. Half an image leaves its boot ROM.
const board = `#!/bin/sh
set -e
flash=/sysroot/mcu/flash
case "$1" in
probe|verify)
	if [ -s $flash ] && [ "$(head -n -1 $flash | sha256sum)" = "$(tail -n 1 $flash)" ]; then
		printf '{"state":"running","version":"%s"}\n' "$(head -n 1 $flash)"
	else
		echo '{"state":"boot-rom"}'
	fi ;;
apply)
	mkdir -p ${flash%/*}
	: >$flash
	sync $flash
	for page in 0 1 2 3; do
		dd if="$2" of=$flash bs=4096 skip=$page seek=$page count=1 conv=notrunc,fsync status=none
	done ;;
esac
`

const (
	flashFile     = "mcu/flash"             // below the top level
	firmwareImage = "usr/lib/board/mcu.bin" // of a release
)

// descriptor describes the firmware of release n.
func descriptor(version string) string {
	return fmt.Sprintf("component: mcu\nhook: /usr/bin/board\nreversible: true\ntimeout: 20s\nimages:\n  - {revisions: [%s], image: /%s, version: %q}\n", revision, firmwareImage, version)
}

// revision is that of the hardware.
const revision = "A1"

// flashImage is the firmware of a version, which says itself whether it is whole.
func flashImage(version string) string {
	body := version + "\n" + filling("firmware "+version, 15_000) + "\n"
	return body + fmt.Sprintf("%x  -\n", sha256.Sum256([]byte(body)))
}

// brings are the application's data and the firmware in the packages of release n.
func brings(n int, version string) map[string]string {
	return map[string]string{
		"usr/bin/app":                          strings.ReplaceAll(application, "EPOCH", fmt.Sprint(epochOf(n))),
		"usr/bin/board":                        board,
		"usr/lib/aptfleet/state.d/app.conf":    fmt.Sprintf("unit app %d /var/lib/ledger /var/lib/app/index\n", epochOf(n)),
		"usr/lib/aptfleet/firmware.d/mcu.yaml": descriptor(version),
		firmwareImage:                          flashImage(version),
		"var/lib/app/index":                    row(epochOf(n), filling("index", 3_000)),
		"var/lib/ledger/seed-" + version:       row(epochOf(n), filling("seed "+version, 30_000)),
	}
}

// writeRow lets the application write while release n is staged.
func writeRow(top string, n int) error {
	text := row(epochOf(runsBefore(n)), filling(fmt.Sprintf("written while %d was staged", n), 10_000))
	return os.WriteFile(filepath.Join(top, "state", unitPlaces[0], fmt.Sprint("row-", n)), []byte(text), 0o640)
}

// readState returns what outlives releases of a mounted device: what is of no
// unit, and what is of the state unit.
func readState(top string) (others, unit files, err error) {
	state := filepath.Join(top, "state")
	if others, err = readFiles(state); err != nil {
		return nil, nil, err
	}
	for path := range others {
		if slices.ContainsFunc(unitPlaces, func(place string) bool { return path == "/"+place || strings.HasPrefix(path, "/"+place+"/") }) {
			delete(others, path)
		}
	}
	unit, err = readUnit(state)
	return others, unit, err
}

// readUnit returns what is of the state unit below dir, which is the state or
// ends like it. Its directories may be subvolumes.
func readUnit(dir string) (files, error) {
	all := make(files)
	for _, place := range unitPlaces {
		part, err := readFiles(filepath.Join(dir, place))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for path, what := range part {
			all[place+path] = what
		}
	}
	return all, nil
}

// lookData judges the state of a device at rest on deployment n.
func (i *image) lookData(top string, n int) error {
	others, unit, err := readState(top)
	if err != nil {
		return mixed("state: %v", err)
	}
	differs := others.among(i.round.state, i.round.seeded)
	if n == i.to {
		differs = others.difference(i.round.seeded)
	}
	if differs != "" {
		return mixed("state: %s", differs)
	}
	switch {
	case n == i.to:
		differs = unit.difference(i.round.dataMade)
	case i.at <= i.round.settled:
		differs = unit.difference(i.round.dataBegun)
	case i.at < i.round.edited:
		differs = unit.among(i.round.dataBegun, i.round.dataEdited)
	default:
		differs = unit.difference(i.round.dataEdited)
	}
	if differs != "" {
		return mixed("state unit: %s", differs)
	}
	return i.lookKept(top, n)
}

// lookKept judges what is kept of the state unit beside it.
func (i *image) lookKept(top string, n int) error {
	kept, err := filepath.Glob(filepath.Join(top, "kept/*/*"))
	if err != nil {
		return err
	}
	ofOld := filepath.Join(top, "kept", fmt.Sprint(i.round.from), "app")
	changed := epochOf(i.round.number) != epochOf(runsBefore(i.round.number))
	for _, dir := range kept {
		switch {
		case filepath.Base(dir) != "app":
			return mixed("%s is left behind", strings.TrimPrefix(dir, top))
		case dir == filepath.Join(top, "kept", fmt.Sprint(n), "app"):
			return mixed("what deployment %d wrote is kept, and it runs", n)
		case dir == ofOld && !changed:
			return mixed("what deployment %d wrote is kept, and is of the same epoch", i.round.from)
		}
	}
	if n != i.to || !changed {
		return nil
	}
	unit, err := readUnit(filepath.Join(ofOld, "state"))
	if err != nil {
		return mixed("what is kept: %v", err)
	}
	if differs := unit.difference(i.round.dataEdited); differs != "" {
		return mixed("what is kept of deployment %d: %s", i.round.from, differs)
	}
	return nil
}

// flashed compares what is in the flash with the image of a deployment.
func flashed(top string, n int) (same bool, err error) {
	buffer := make([]byte, 32<<10)
	has, err := hash(filepath.Join(top, flashFile), buffer)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	want, err := hash(filepath.Join(deploymentRoot(top, n), firmwareImage), buffer)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return has == want, err
}

// half reports whether the flash holds what neither release has.
func (i *image) half(top string) (bool, error) {
	old, err := flashed(top, i.round.from)
	if err != nil || old {
		return false, err
	}
	made, err := flashed(top, i.to)
	return !made, err
}
