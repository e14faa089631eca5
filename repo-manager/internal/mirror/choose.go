package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"aptfleet/internal/deb"
	"aptfleet/repo-manager/internal/publish"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// selected is one package of the result.
type selected struct {
	snapshots.Package
	from   *upstream
	source string // path of the .deb below the upstream archive
	file   string // name of the .deb in our pool
}

func (s selected) listed() listed { return listed{sha256: s.SHA256, size: s.Size} }

// wishes is what a mirror wants of its suites.
type wishes struct {
	release.MirrorConfig
	filter filter // nil without one
}

func wishesOf(config release.MirrorConfig) (wishes, error) {
	w := wishes{MirrorConfig: config}
	if config.Filter == "" {
		return w, nil
	}
	var err error
	if w.filter, err = parseFilter(config.Filter); err != nil {
		return w, fmt.Errorf("cannot use the filter of the mirror: %w", err)
	}
	return w, nil
}

// choose reads indices, which are in the store, and returns the packages that
// the mirror is to have, in the order of their names.
func choose(ctx context.Context, store downloads, indices []index, architectures []string, w wishes, progress Progress) ([]selected, error) {
	var all selection
	unknown := map[string]int{} // wanted names, by in how many architectures they are missing
	for _, architecture := range architectures {
		universe, err := loadUniverse(ctx, store, indices, architecture, w.filter)
		if err != nil {
			return nil, err
		}
		err = universe.collect(w, &all, unknown)
		if err := errors.Join(err, universe.Close()); err != nil {
			return nil, err
		}
		progress.Logf("%s: %d packages upstream", architecture, len(universe.names))
	}
	for _, name := range slices.Sorted(slices.Values(w.Packages)) {
		switch unknown[name] {
		case 0:
		case len(architectures):
			return nil, fmt.Errorf("cannot mirror package %q: %s has none of that name", name, w.Where())
		default:
			progress.Logf("package %s is not there for every architecture", name)
		}
	}
	if len(all.packages) == 0 {
		return nil, fmt.Errorf("cannot mirror %s: nothing in it was asked for", w.Where())
	}
	slices.SortFunc(all.packages, func(a, b selected) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Architecture, b.Architecture))
	})
	return all.packages, nil
}

// selection gathers what several architectures select.
type selection struct {
	packages []selected
	index    map[snapshots.Ref]int
}

// add takes a package that may be there already.
func (all *selection) add(s selected) error {
	if i, known := all.index[s.Ref()]; known {
		if other := all.packages[i]; other.SHA256 != s.SHA256 {
			return fmt.Errorf("cannot take over %s: upstream has two different files of that name, %s and %s", s.Ref(), other.source, s.source)
		}
		return nil
	}
	if all.index == nil {
		all.index = make(map[snapshots.Ref]int)
	}
	all.index[s.Ref()] = len(all.packages)
	all.packages = append(all.packages, s)
	return nil
}

// loadUniverse reads the indices of one architecture.
func loadUniverse(ctx context.Context, store downloads, indices []index, architecture string, filter filter) (*universe, error) {
	universe, err := newUniverse(architecture, filter)
	if err != nil {
		return nil, err
	}
	for _, ix := range indices {
		if ix.architecture != architecture {
			continue
		}
		if err := ix.read(ctx, store, func(s deb.Stanza) error { return universe.add(ix.release.up, s) }); err != nil {
			return nil, errors.Join(err, universe.Close())
		}
	}
	if err := universe.seal(); err != nil {
		return nil, errors.Join(err, universe.Close())
	}
	return universe, nil
}

// collect adds what is wished for to all, and counts wanted names that this
// architecture lacks.
func (u *universe) collect(w wishes, all *selection, unknown map[string]int) error {
	for _, name := range slices.Compact(slices.Sorted(slices.Values(w.Packages))) {
		if _, ok := u.names[name]; !ok {
			unknown[name]++
		}
	}
	wanted, err := u.wanted(w)
	if err != nil {
		return err
	}
	for _, c := range wanted {
		if c.rival != nil {
			return fmt.Errorf("cannot take over %s %s: %s and %s have different files of that version; give one of the suites a higher priority",
				c.name, c.version, c.from.what(), c.rival.what())
		}
		stanza, err := u.stanza(c)
		if err != nil {
			return err
		}
		s, err := adopt(stanza)
		if err != nil {
			return fmt.Errorf("cannot take over %s %s: %w", c.name, c.version, err)
		}
		s.from = c.from
		if err := all.add(s); err != nil {
			return err
		}
	}
	return nil
}

// wanted lists what is wished for of this architecture. A package that the
// filter matches brings its dependencies only if that was said.
func (u *universe) wanted(w wishes) ([]*candidate, error) {
	var result []*candidate
	var roots []root
	for _, c := range u.names {
		switch {
		case w.All, c.matches && !w.FilterDeps:
			result = append(result, c)
		case c.matches:
			roots = append(roots, root{c.name, "matches the filter"})
		}
	}
	roots = append(rootsOf(w.Packages), roots...)
	if len(roots) == 0 {
		return result, nil
	}
	members, err := u.close(roots, w.Recommends)
	for _, m := range members {
		result = append(result, m.candidate)
	}
	return result, err
}

func rootsOf(names []string) []root {
	roots := make([]root, len(names))
	for i, name := range names {
		roots[i] = root{name, "wanted"}
	}
	return roots
}

// adopt turns a stanza of upstream's index into one of ours: Filename says
// where our pool has the file, the weak hashes go; all else keeps its bytes.
func adopt(stanza deb.Stanza) (selected, error) {
	s := selected{source: path.Clean(stanza.Get("Filename"))}
	if err := localPath(s.source); err != nil || s.source == "." {
		return selected{}, fmt.Errorf("its Filename %q is not a plain path below the archive", stanza.Get("Filename"))
	}
	sum, err := snapshots.ParseID(stanza.Get("SHA256"))
	if err != nil {
		return selected{}, fmt.Errorf("its SHA256: %w", err)
	}
	s.file = deb.FileName(stanza.Get("Package"), stanza.Get("Version"), stanza.Get("Architecture"))
	if len(s.file) > deb.MaxFileName {
		return selected{}, fmt.Errorf("its file would have a name of %d bytes, %d are possible", len(s.file), deb.MaxFileName)
	}
	ours := stanza.Without("MD5sum").Without("SHA1").With("Filename", publish.PoolFilename(sum, s.file))
	if s.Package, err = snapshots.ParsePackage(ours.Bytes()); err != nil {
		return selected{}, err
	}
	if s.Size > maxPackage {
		return selected{}, fmt.Errorf("its size of %d bytes is above the limit of %d", s.Size, int64(maxPackage))
	}
	return s, nil
}
