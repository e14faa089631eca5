package update

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/health"
	"aptfleet/device-updater/internal/rootfs"
	"aptfleet/internal/atomicfile"
	"aptfleet/internal/bom"
	"aptfleet/internal/protocol"
)

// Deployment is what the updater knows about one deployment.
type Deployment struct {
	Format   int           `json:"format,omitempty"` // of the record: recordFormat
	ID       int           `json:"id"`
	State    string        `json:"state,omitempty"` // "" for a factory image that did not say
	Snapshot string        `json:"snapshot,omitempty"`
	From     int           `json:"from"` // that it was cloned from
	Made     time.Time     `json:"made"`
	TopLevel []string      `json:"top_level,omitempty"`
	Packages []apt.Package `json:"packages,omitempty"` // the exact list with the overlay, sorted
	BOM      string        `json:"bom,omitempty"`      // the bill of materials, as it is signed; "" if apt computed the list
	Origin   *Origin       `json:"origin,omitempty"`   // where its packages lie; nil: as the configuration says
	Overlay  Overlay       `json:"overlay,omitempty"`  // what is on top of the release
	Pin      *Pin          `json:"pin,omitempty"`      // why it stays; nil: it may be pruned
	Units    []rootfs.Unit `json:"units,omitempty"`    // state units that it declares
}

// Version returns the version of the first top-level package, "" if unknown.
func (d Deployment) Version() string {
	for _, p := range d.Packages {
		if len(d.TopLevel) > 0 && p.Name == d.TopLevel[0] {
			return p.Version
		}
	}
	return ""
}

// bomSum names the bill of materials that it was made of; "" if there was none.
func (d Deployment) bomSum() string {
	if d.BOM == "" {
		return ""
	}
	return bom.Sum([]byte(d.BOM))
}

// hashes maps the packages to the SHA-256 under which they were installed.
func (d Deployment) hashes() map[string]string {
	known := make(map[string]string)
	for _, p := range d.Packages {
		if p.SHA256 != "" {
			known[p.String()] = p.SHA256
		}
	}
	return known
}

// Records are small files that outlive deployments. Each is replaced whole and
// durably; one that does not exist reads as nothing. Fields that a newer updater
// wrote are kept.
type Records struct {
	dir  string
	step func(act string) // tests end it there; nil: nothing
}

// OpenRecords uses dir, which is made where it is absent.
func OpenRecords(dir string) (Records, error) {
	for _, sub := range []string{"", "deployments", "manifests", "etc", "logs", "overlay"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return Records{}, fmt.Errorf("cannot keep records: %w", err)
		}
	}
	return Records{dir: dir}, nil
}

// unlocked are the records that processes without the updater's lock write, at
// any time.
var unlocked = []string{holdRecord, developRecord, verifiedRecord}

// Sweep deletes what power cuts left of files that nobody else can be writing:
// whoever calls it has the updater's lock. Directories in which everything is
// deleted that is not needed are left to those who do so.
func (r Records) Sweep() error {
	var failures []error
	for _, dir := range []string{"", "deployments", "manifests", "etc", "seeded", "apt/state"} {
		failures = append(failures, atomicfile.Sweep(r.path(dir), func(file string) bool { return dir != "" || !slices.Contains(unlocked, file) }))
	}
	return errors.Join(failures...)
}

// pass tells a test where it is.
func (r Records) pass(act string) {
	if r.step != nil {
		r.step(act)
	}
}

func (r Records) path(name string) string { return filepath.Join(r.dir, name) }

// Deployment returns the record of deployment n.
func (r Records) Deployment(n int) (Deployment, error) {
	d := Deployment{ID: n}
	err := r.read("deployments/"+strconv.Itoa(n)+".json", &d)
	return d, err
}

// PutDeployment keeps d.
func (r Records) PutDeployment(d Deployment) error {
	d.Format = recordFormat
	return r.write("deployments/"+strconv.Itoa(d.ID)+".json", d)
}

// keepLogs is how many numbers back the log of an installation is kept, also
// where the deployment is gone: it says why.
const keepLogs = 5

// Forget drops the records of deployment n, also that its seeds were copied into
// the state: a later one may get the number. Of the logs, it drops old ones.
func (r Records) Forget(n int) error {
	id := strconv.Itoa(n)
	r.pass("before forget " + id)
	defer r.pass("forget " + id)
	old := strconv.Itoa(n - keepLogs)
	for _, name := range []string{"deployments/" + id + ".json", "manifests/" + id, "seeded/" + id, etcReport(n), etcFiles(n), "logs/" + old} {
		if err := os.Remove(r.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot forget deployment %d: %w", n, err)
		}
	}
	return nil
}

// Manifest is the path of the list of files of deployment n.
func (r Records) Manifest(n int) string { return r.path("manifests/" + strconv.Itoa(n)) }

// files reads the list of files of deployment n; nil if there is none.
func (r Records) files(n int) (map[string]rootfs.Entry, error) {
	f, err := os.Open(r.Manifest(n))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read record: %w", err)
	}
	defer f.Close()
	return rootfs.ReadManifest(f)
}

// Log is the path of what the installation of deployment n printed.
func (r Records) Log(n int) string { return r.path("logs/" + strconv.Itoa(n)) }

// Failed returns the releases that are not tried again, oldest first.
func (r Records) Failed() ([]protocol.Failure, error) {
	var all []protocol.Failure
	err := r.read("failed.json", &all)
	return all, err
}

// keepFailures bounds the memory of failed releases; the oldest go first.
const keepFailures = 50

// Fail remembers that a release failed.
func (r Records) Fail(f protocol.Failure) error {
	all, err := r.without(func(old protocol.Failure) bool { return old.State == f.State && old.Overlay == f.Overlay })
	if err != nil {
		return err
	}
	failure, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("cannot remember the failure of %s: %w", f.State, err)
	}
	all = append(all, failure)
	if over := len(all) - keepFailures; over > 0 {
		all = all[over:]
	}
	return r.write("failed.json", all)
}

// Forgive forgets that a release failed; "" forgets all.
func (r Records) Forgive(state string) error {
	all, err := r.without(func(old protocol.Failure) bool { return state == "" || old.State == state })
	if err != nil {
		return err
	}
	return r.write("failed.json", all)
}

// without returns the other failures as they are in the file.
func (r Records) without(gone func(protocol.Failure) bool) ([]json.RawMessage, error) {
	var raw []json.RawMessage
	if err := r.read("failed.json", &raw); err != nil {
		return nil, err
	}
	kept := []json.RawMessage{}
	for _, one := range raw {
		var f protocol.Failure
		if err := json.Unmarshal(one, &f); err != nil {
			return nil, fmt.Errorf("cannot read record %s: %w", r.path("failed.json"), err)
		}
		if !gone(f) {
			kept = append(kept, one)
		}
	}
	return kept, nil
}

// Baseline returns what was wrong before the update that is on trial.
func (r Records) Baseline() (health.Baseline, error) {
	var b health.Baseline
	err := r.read("baseline.json", &b)
	return b, err
}

// PutBaseline keeps b.
func (r Records) PutBaseline(b health.Baseline) error { return r.write("baseline.json", b) }

// Times are what the updater learned about time.
type Times struct {
	Floor time.Time            `json:"floor"` // the newest signed date: it has passed
	Seen  map[string]time.Time `json:"seen"`  // per base, the newest date it offered
}

// Times returns what was kept.
func (r Records) Times() (Times, error) {
	var t Times
	err := r.read("times.json", &t)
	return t, err
}

// PutTimes keeps t.
func (r Records) PutTimes(t Times) error { return r.write("times.json", t) }

// Status returns what the updater last said about itself.
func (r Records) Status() (Status, error) {
	var s Status
	err := r.read("status.json", &s)
	return s, err
}

// PutStatus keeps s.
func (r Records) PutStatus(s Status) error { return r.write("status.json", s) }

func (r Records) read(name string, to any) error {
	r.pass("before read " + name)
	raw, err := os.ReadFile(r.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read record: %w", err)
	}
	if err := json.Unmarshal(raw, to); err != nil {
		return fmt.Errorf("cannot read record %s: %w", r.path(name), err)
	}
	return nil
}

func (r Records) write(name string, v any) error {
	r.pass("before write " + name)
	raw, err := json.MarshalIndent(v, "", "  ")
	if err == nil {
		raw, err = withUnknown(r.path(name), raw, v)
	}
	if err != nil {
		return fmt.Errorf("cannot keep record %s: %w", name, err)
	}
	if err := atomicfile.Write(r.path(name), append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("cannot keep record %s: %w", name, err)
	}
	r.pass("write " + name)
	return nil
}

// remove makes a record read as nothing, durably. It may be repeated.
func (r Records) remove(name string) error {
	err := os.Remove(r.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = atomicfile.SyncDir(filepath.Dir(r.path(name)))
	}
	if err != nil {
		return fmt.Errorf("cannot delete record %s: %w", name, err)
	}
	return nil
}
