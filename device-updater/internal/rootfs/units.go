package rootfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"aptfleet/internal/atomicfile"
	"aptfleet/internal/faultpoint"
)

// Units are the state units of a device: which epoch lies in the state, and the
// copies of other epochs.
//
//	kept/units.json      what lies in the state, of all units
//	kept/<n>/<unit>/     what deployment n last wrote: unit.json, and the files
//	                     with their paths below the top level
//
// What an epoch's data are is decided in the boot of a deployment, before
// anything of it can reach the state: so a copy is what the deployment before
// last wrote, however it ended, and whatever becomes of the updater in a
// deployment that is on trial, the next boot of the other one puts things right.
type Units struct {
	Sysroot string
	Clock   func() time.Time // nil: the machine's

	cut func() // called between any two acts of Settle: tests end it there
}

// between is where the power may fail.
func (u Units) between() {
	faultpoint.Hit("kept:units")
	if u.cut != nil {
		u.cut()
	}
}

// Live is a unit as it lies in the state.
type Live struct {
	Unit
	Deployment int       `json:"deployment"` // that last ran with it
	Since      time.Time `json:"since"`      // when this epoch began to be written
}

// Copy is a unit as a deployment that does not run last wrote it.
type Copy struct {
	Unit
	Deployment int       `json:"deployment"`
	Since      time.Time `json:"since"`         // when this epoch began to be written
	At         time.Time `json:"at"`            // when another one took its place
	Dir        string    `json:"dir,omitempty"` // where it lies; not kept
}

// live is what units.json says of a unit.
type live struct {
	Live
	Places []string `json:"places"` // below the top level, sorted
	Swap   *swap    `json:"swap,omitempty"`
}

// swap is an exchange of what lies in the state for the copy of another
// deployment that has begun.
type swap struct {
	To     Copy     `json:"to"`
	Places []string `json:"places"`
	Empty  []string `json:"empty,omitempty"` // of them, where the copy has nothing
}

// copied is unit.json of a copy.
type copied struct {
	Copy
	Places []string `json:"places"`
}

// ledger is units.json.
type ledger struct {
	Booted *int            `json:"booted,omitempty"` // that last mounted the state
	Units  map[string]live `json:"units"`
}

func (u Units) ledgerFile() string { return filepath.Join(u.Sysroot, "kept/units.json") }

func (u Units) copyDir(n int, name string) string {
	return filepath.Join(u.Sysroot, "kept", strconv.Itoa(n), name)
}

// Endings of directories that are not finished.
const (
	copying = ".copying"
	aside   = ".aside"
)

func (u Units) read() (ledger, error) {
	l := ledger{Units: make(map[string]live)}
	raw, err := os.ReadFile(u.ledgerFile())
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &l)
	}
	if err == nil && l.Units == nil {
		err = errors.New("it names none")
	}
	if err != nil {
		return l, fmt.Errorf("cannot read which state units there are: %s: %w", u.ledgerFile(), err)
	}
	return l, nil
}

func (u Units) write(l ledger) error {
	raw, err := json.MarshalIndent(l, "", "  ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(u.ledgerFile()), 0o700)
	}
	if err == nil {
		err = atomicfile.Write(u.ledgerFile(), append(raw, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot keep which state units there are: %w", err)
	}
	return nil
}

// Declared returns the units that the packages in root declare. Anything wrong
// with their declarations is an error.
func (u Units) Declared(root string) ([]Unit, error) {
	d, err := ReadDeclared(root)
	return d.Units, err
}

// Live returns the units that lie in the state, by name.
func (u Units) Live() ([]Live, error) {
	l, err := u.read()
	if err != nil {
		return nil, err
	}
	var all []Live
	for _, name := range slices.Sorted(maps.Keys(l.Units)) {
		all = append(all, l.Units[name].Live)
	}
	return all, nil
}

// Kept returns the copies that there are, by deployment and name.
func (u Units) Kept() ([]Copy, error) {
	dirs, err := filepath.Glob(filepath.Join(u.Sysroot, "kept/*/*/unit.json"))
	if err != nil {
		return nil, err
	}
	var all []Copy
	for _, file := range dirs {
		dir := filepath.Dir(file)
		n, err := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		if err != nil || strings.HasSuffix(dir, copying) || strings.HasSuffix(dir, aside) {
			continue
		}
		c, err := u.copied(n, filepath.Base(dir))
		if err != nil {
			return nil, err
		}
		all = append(all, c.Copy)
	}
	slices.SortFunc(all, func(a, b Copy) int {
		if a.Deployment != b.Deployment {
			return a.Deployment - b.Deployment
		}
		return strings.Compare(a.Name, b.Name)
	})
	return all, nil
}

// copied reads the record of a copy; fs.ErrNotExist if there is none.
func (u Units) copied(n int, name string) (copied, error) {
	var c copied
	file := filepath.Join(u.copyDir(n, name), "unit.json")
	raw, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(raw, &c)
	}
	if err != nil {
		return c, fmt.Errorf("cannot read what was kept of state unit %s: %s: %w", name, file, err)
	}
	c.Dir = u.copyDir(n, name)
	return c, nil
}

// Drop deletes the copies of what deployment n wrote. It may be repeated.
func (u Units) Drop(n int) error {
	if err := os.RemoveAll(filepath.Join(u.Sysroot, "kept", strconv.Itoa(n))); err != nil {
		return fmt.Errorf("cannot delete the state that was kept of deployment %d: %w", n, err)
	}
	return nil
}

// Prune deletes the copies, also half ones, of all deployments but those to keep.
func (u Units) Prune(keep func(n int) bool) error {
	dirs, err := os.ReadDir(filepath.Join(u.Sysroot, "kept"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	failures := []error{err}
	for _, dir := range dirs {
		if n, err := strconv.Atoi(dir.Name()); err == nil && !keep(n) {
			failures = append(failures, u.Drop(n))
		}
	}
	return errors.Join(failures...)
}

// Settle makes what lies in the state what deployment n reads. What is of
// another epoch is kept for the deployment that wrote it; what n itself wrote in
// its epoch, if that was kept, takes its place. Else n is given what there is: it
// is to bring that to its epoch.
//
// It is called before anything can reach the state. Interrupted anywhere, it is
// repeated by the next boot, also by that of another deployment. A unit that
// cannot be settled is left as it is; its paths are to be closed off.
func (u Units) Settle(n int, d Declared) (closed []string, troubles []error) {
	// Only this writes the ledger.
	if err := atomicfile.Sweep(filepath.Dir(u.ledgerFile()), func(file string) bool { return file == filepath.Base(u.ledgerFile()) }); err != nil {
		troubles = append(troubles, err)
	}
	l, err := u.read()
	if err != nil {
		// What is committed read what there is until now, and no trial begins
		// while the file is damaged.
		troubles = append(troubles, fmt.Errorf("%w; it begins anew", err))
		l = ledger{Units: make(map[string]live)}
	}
	for _, name := range u.names(n, l, d) {
		paths, err := u.settleUnit(n, name, &l, d)
		if err != nil {
			closed = append(closed, paths...)
			troubles = append(troubles, fmt.Errorf("cannot settle state unit %s: %w", name, err))
		}
	}
	if l.Booted == nil || *l.Booted != n {
		l.Booted = &n
		if err := u.write(l); err != nil {
			troubles = append(troubles, err)
		}
	}
	return closed, troubles
}

// names are those of the units that a boot of deployment n has to do with.
func (u Units) names(n int, l ledger, d Declared) []string {
	var all []string
	for _, unit := range d.Units {
		all = append(all, unit.Name)
	}
	for name, x := range l.Units {
		if x.Swap != nil {
			all = append(all, name)
		}
	}
	// What was kept of a deployment that did not declare the unit.
	if names, err := os.ReadDir(filepath.Join(u.Sysroot, "kept", strconv.Itoa(n))); err == nil {
		for _, e := range names {
			if !strings.Contains(e.Name(), ".") {
				all = append(all, e.Name())
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// settleUnit settles one unit and keeps in l what was done, durably. With an
// error it returns the paths that nobody may reach.
func (u Units) settleUnit(n int, name string, l *ledger, d Declared) ([]string, error) {
	now, known := l.Units[name]
	if now.Swap != nil {
		var err error
		if now, err = u.finish(l, now); err != nil {
			return now.Paths, err
		}
	}
	var kept copied
	var err error
	has := false
	if known && now.Deployment != n {
		kept, err = u.copied(n, name)
		has = err == nil
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return now.Paths, err
		}
		err = nil
	}
	want, declared := d.unit(name)
	switch {
	case declared:
	case has:
		want = kept.Unit // as it was before a release declared it
	default:
		return nil, nil
	}
	switch {
	case has && now.Epoch != want.Epoch && kept.Epoch == want.Epoch:
		return slices.Concat(now.Paths, want.Paths), u.putBack(l, now, kept)
	case !declared:
		return nil, nil
	}
	places := d.placesOf(want)
	next := live{Live: Live{Unit: want, Deployment: n, Since: u.now()}, Places: places}
	switch {
	case !known && (want.Epoch == 0 || l.Booted == nil || *l.Booted == n):
		// The first boot of all, or a person declared it on this device.
	case !known:
		// Of what the deployment before had there nobody said the epoch.
		now = live{Live: Live{Unit: Unit{Name: name, Paths: want.Paths}, Deployment: *l.Booted}}
		err = u.keep(now, places)
	case now.Epoch == want.Epoch && now.Deployment == n && slices.Equal(now.Paths, want.Paths):
		return nil, nil
	case now.Epoch == want.Epoch:
		next.Since = now.Since
		// A boot that was interrupted may have kept what is older than this.
		err = errors.Join(os.RemoveAll(u.copyDir(now.Deployment, name)), os.RemoveAll(u.copyDir(n, name)))
	case now.Deployment == n:
		// A person changed what this deployment declares.
	default:
		all := slices.Concat(now.Places, places)
		slices.Sort(all)
		err = u.keep(now, slices.Compact(all))
	}
	if err != nil {
		return slices.Concat(now.Paths, want.Paths), err
	}
	u.between()
	defer u.between()
	return want.Paths, u.put(l, name, next)
}

func (u Units) now() time.Time {
	clock := time.Now
	if u.Clock != nil {
		clock = u.Clock
	}
	return clock().UTC().Truncate(time.Second)
}

// put keeps what lies in the state of a unit.
func (u Units) put(l *ledger, name string, next live) error {
	before, had := l.Units[name]
	l.Units[name] = next
	err := u.write(*l)
	if err != nil {
		delete(l.Units, name)
		if had {
			l.Units[name] = before
		}
	}
	return err
}

// keep copies what lies in the state for the deployment that wrote it. What the
// state has is not touched, but that directories become subvolumes: a copy of
// those is a snapshot, which takes no time however much is in it.
func (u Units) keep(now live, places []string) error {
	dir := u.copyDir(now.Deployment, now.Name)
	// One that is there is older: its deployment has run since.
	if err := errors.Join(os.RemoveAll(dir), os.RemoveAll(dir+copying), os.MkdirAll(dir+copying, 0o700)); err != nil {
		return err
	}
	var divided []string
	files := newCopier()
	for _, place := range places {
		u.between()
		from, to := filepath.Join(u.Sysroot, place), filepath.Join(dir+copying, place)
		info, err := os.Lstat(from)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = u.plain(place)
		}
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o700)
		}
		switch {
		case err != nil:
		case wholeSubvolume(from):
			err = snapshot(from, to, false)
		default:
			if info.IsDir() {
				divided = append(divided, place)
			}
			files.divide[to] = info.IsDir()
			err = files.tree(from, to)
		}
		if err != nil {
			return err
		}
	}
	if len(divided) > 0 {
		if err := atomicfile.SyncFS(u.Sysroot); err != nil {
			return err
		}
	}
	for _, place := range divided {
		u.between()
		// The two are alike.
		from, to := filepath.Join(u.Sysroot, place), filepath.Join(dir+copying, place)
		if err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE); err != nil {
			return err
		}
	}
	return u.seal(now, places, dir+copying, dir)
}

// plain refuses a place that an application moved elsewhere by a symbolic link
// on the way to it: that is nothing to rename as root.
func (u Units) plain(place string) error { return plainWay(u.Sysroot, "/"+path.Dir(place)) }

// seal gives a whole copy its record and its name.
func (u Units) seal(now live, places []string, from, to string) error {
	c := copied{Copy: Copy{Unit: now.Unit, Deployment: now.Deployment, Since: now.Since, At: u.now()}, Places: places}
	raw, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(from, "unit.json"), append(raw, '\n'), 0o600); err != nil {
		return err
	}
	u.between()
	if err := atomicfile.SyncFS(u.Sysroot); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	u.between()
	return atomicfile.SyncDir(filepath.Dir(to))
}

// putBack exchanges what lies in the state for a copy. From the moment on when the
// ledger says so, finish is what every boot does first.
func (u Units) putBack(l *ledger, now live, kept copied) error {
	dir := u.copyDir(now.Deployment, now.Name)
	if err := errors.Join(os.RemoveAll(dir), os.RemoveAll(dir+aside), os.RemoveAll(dir+copying)); err != nil {
		return err
	}
	now.Swap = &swap{To: kept.Copy, Places: kept.Places}
	now.Swap.To.Dir = ""
	for _, place := range kept.Places {
		if _, err := os.Lstat(filepath.Join(kept.Dir, place)); errors.Is(err, fs.ErrNotExist) {
			now.Swap.Empty = append(now.Swap.Empty, place)
		} else if err != nil {
			return err
		}
	}
	// That dir is gone is how finish tells what it did.
	if err := atomicfile.SyncFS(u.Sysroot); err != nil {
		return err
	}
	if err := u.put(l, now.Name, now); err != nil {
		return err
	}
	u.between()
	_, err := u.finish(l, now)
	return err
}

// finish carries out an exchange that was begun, by renaming alone: what lies in
// the state becomes the copy of the deployment that wrote it. It may have been
// interrupted anywhere.
func (u Units) finish(l *ledger, now live) (live, error) {
	to := now.Swap
	left, source := u.copyDir(now.Deployment, now.Name), u.copyDir(to.To.Deployment, now.Name)
	if _, err := os.Lstat(left); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(left+aside, 0o700); err != nil {
			return now, err
		}
		for _, place := range to.Places {
			if err := u.plain(place); err != nil {
				return now, err
			}
			err := u.exchange(filepath.Join(u.Sysroot, place), filepath.Join(source, place), filepath.Join(left+aside, place), slices.Contains(to.Empty, place))
			if err != nil {
				return now, err
			}
		}
		if err := u.seal(now, to.Places, left+aside, left); err != nil {
			return now, err
		}
	}
	// What the deployment that is left brought went with it.
	if err := forgetSeeds(seedsDir(u.Sysroot), now.Deployment, to.Places); err != nil {
		return now, err
	}
	u.between()
	if err := errors.Join(os.RemoveAll(source), atomicfile.SyncFS(u.Sysroot)); err != nil {
		return now, err
	}
	u.between()
	next := live{Live: Live{Unit: to.To.Unit, Deployment: to.To.Deployment, Since: to.To.Since}, Places: to.Places}
	return next, u.put(l, now.Name, next)
}

// exchange moves what is at place to aside, and what is at source to place,
// unless that has nothing. Part of it may have been done.
func (u Units) exchange(place, source, aside string, empty bool) error {
	if _, err := os.Lstat(source); errors.Is(err, fs.ErrNotExist) && !empty {
		return nil // all was done
	}
	if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(aside), 0o700); err != nil {
			return err
		}
		if err := os.Rename(place, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	u.between()
	if empty {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(place), 0o755); err != nil {
		return err
	}
	defer u.between()
	return os.Rename(source, place)
}

// unit returns a declared unit by its name.
func (d Declared) unit(name string) (Unit, bool) {
	i := slices.IndexFunc(d.Units, func(u Unit) bool { return u.Name == name })
	if i < 0 {
		return Unit{}, false
	}
	return d.Units[i], true
}

// placesOf returns where the paths of a unit lie, sorted; of one that is not
// declared, none.
func (d Declared) placesOf(u Unit) []string {
	var places []string
	for _, p := range u.Paths {
		if place, ok := d.places[p]; ok {
			places = append(places, place)
		}
	}
	slices.Sort(places)
	return places
}
