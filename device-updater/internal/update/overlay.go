package update

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/internal/atomicfile"
	"aptfleet/internal/deb"
)

// LocalPackage is a package that a person put on top of the release.
type LocalPackage struct {
	Name         string    `json:"name"`
	Architecture string    `json:"architecture"`
	Version      string    `json:"version"`
	SHA256       string    `json:"sha256"` // lower-case hex, of the .deb
	Size         int64     `json:"size"`   // bytes
	File         string    `json:"file"`   // what the person called it
	At           time.Time `json:"at"`
	By           string    `json:"by,omitempty"`
}

// String returns the name and version.
func (p LocalPackage) String() string { return p.Name + " " + p.Version }

// Overlay is what is on top of a release, sorted by name; empty on a device
// that is equal to its release.
type Overlay []LocalPackage

// ID names the overlay by its contents: 64 hex digits, or "" of an empty one.
func (o Overlay) ID() string {
	if len(o) == 0 {
		return ""
	}
	h := sha256.New()
	for _, p := range o {
		fmt.Fprintf(h, "%s:%s=%s %s\n", p.Name, p.Architecture, p.Version, p.SHA256)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Names lists the packages as people read them.
func (o Overlay) Names() []string {
	var names []string
	for _, p := range o {
		names = append(names, p.String())
	}
	return names
}

// With returns the overlay with more packages, each in the place of the one of
// its name.
func (o Overlay) With(more Overlay) Overlay {
	all := slices.Clone(more)
	for _, p := range o {
		if !slices.ContainsFunc(more, func(m LocalPackage) bool { return m.Name == p.Name }) {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b LocalPackage) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// overlayList is the file that says what is wanted on top of every release. The
// .debs lie beside it, by their hash.
const overlayList = "overlay/overlay.json"

// Overlay returns what is wanted on top of every release.
func (r Records) Overlay() (Overlay, error) {
	var o Overlay
	err := r.read(overlayList, &o)
	return o, err
}

// PutOverlay makes o what is wanted on top of every release. Its .debs must
// have been kept.
func (r Records) PutOverlay(o Overlay) error {
	if len(o) > 0 {
		return r.write(overlayList, o)
	}
	r.pass("before write " + overlayList)
	defer r.pass("write " + overlayList)
	return r.remove(overlayList)
}

// LocalFile is where the .deb of a local package is kept.
func (r Records) LocalFile(p LocalPackage) string { return r.path("overlay/" + p.SHA256 + ".deb") }

// KeepLocal copies the .debs at the given paths, durably, and returns what they
// are. by is who brought them.
func (r Records) KeepLocal(files []string, by string, now time.Time) (Overlay, error) {
	var o Overlay
	for _, name := range files {
		p, err := r.keepLocal(name)
		if err != nil {
			return nil, fmt.Errorf("cannot try %s: %w", name, err)
		}
		if i := slices.IndexFunc(o, func(q LocalPackage) bool { return q.Name == p.Name }); i >= 0 {
			return nil, fmt.Errorf("cannot try %s: %s holds package %s too", name, o[i].File, p.Name)
		}
		p.File, p.By, p.At = filepath.Base(name), by, now.UTC().Truncate(time.Second)
		o = append(o, p)
	}
	return Overlay{}.With(o), nil
}

func (r Records) keepLocal(name string) (p LocalPackage, err error) {
	// Looked at first: opening a pipe would wait for its writer.
	info, err := os.Stat(name)
	if err != nil {
		return p, err
	}
	if !info.Mode().IsRegular() {
		return p, errors.New("it is not a file")
	}
	f, err := os.Open(name)
	if err != nil {
		return p, err
	}
	defer f.Close()
	read, err := deb.Read(f, deb.Limits{})
	var format *deb.FormatError
	if errors.As(err, &format) {
		return p, fmt.Errorf("it is not a .deb: %w", err)
	}
	if err != nil {
		return p, err
	}
	p = LocalPackage{Name: read.Name, Architecture: read.Architecture, Version: read.Version, SHA256: hex.EncodeToString(read.SHA256[:]), Size: read.Size}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return p, err
	}
	r.pass("before keep " + p.Name)
	defer r.pass("keep " + p.Name)
	h := sha256.New()
	if err := atomicfile.WriteFrom(r.LocalFile(p), io.TeeReader(f, h), 0o600); err != nil {
		return p, err
	}
	if hex.EncodeToString(h.Sum(nil)) != p.SHA256 {
		return p, errors.Join(errors.New("it changes while it is read"), os.Remove(r.LocalFile(p)))
	}
	return p, nil
}

// SweepLocal deletes what is kept of local packages but for those of overlays.
func (r Records) SweepLocal(overlays ...Overlay) error {
	keep := map[string]bool{filepath.Base(overlayList): true}
	for _, o := range overlays {
		for _, p := range o {
			keep[filepath.Base(r.LocalFile(p))] = true
		}
	}
	entries, err := os.ReadDir(r.path("overlay"))
	if err != nil {
		return fmt.Errorf("cannot look through local packages: %w", err)
	}
	for _, e := range entries {
		if keep[e.Name()] {
			continue
		}
		if err := os.Remove(r.path("overlay/" + e.Name())); err != nil {
			return fmt.Errorf("cannot delete local package: %w", err)
		}
	}
	return nil
}

// local returns the overlay as apt is told of it.
func (r Records) local(o Overlay) []apt.Package {
	var all []apt.Package
	for _, p := range o {
		all = append(all, apt.LocalPackage(p.Name, p.Architecture, p.Version, p.SHA256, p.Size, r.LocalFile(p)))
	}
	return all
}
