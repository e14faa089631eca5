package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"aptfleet/internal/deb"
	"aptfleet/repo-manager/internal/pool"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// selected is one package of the result.
type selected struct {
	snapshots.Package
	source string // path of the .deb below the upstream archive
	file   string // name of the .deb in our pool
}

// choose reads the indices of every architecture and returns the packages
// that the mirror is to have, in the order of their names.
func (u *Updater) choose(ctx context.Context, up *upstream, rel inRelease, architectures []string, config release.MirrorConfig, progress Progress) ([]selected, error) {
	all := map[snapshots.Ref]selected{}
	unknown := map[string]int{} // wanted names, by in how many architectures they are missing
	for _, architecture := range architectures {
		universe, err := loadUniverse(ctx, up, rel, architecture, config.Components)
		if err != nil {
			return nil, err
		}
		err = universe.collect(config, all, unknown)
		if err := errors.Join(err, universe.Close()); err != nil {
			return nil, err
		}
		progress.Logf("%s: %d packages in %s", architecture, len(universe.names), strings.Join(config.Components, ", "))
	}
	for _, name := range slices.Sorted(slices.Values(config.Packages)) {
		switch unknown[name] {
		case 0:
		case len(architectures):
			return nil, fmt.Errorf("cannot mirror package %q: %s has none of that name in %s",
				name, rel.what(), strings.Join(config.Components, ", "))
		default:
			progress.Logf("package %s is not there for every architecture", name)
		}
	}
	result := make([]selected, 0, len(all))
	for _, s := range all {
		result = append(result, s)
	}
	slices.SortFunc(result, func(a, b selected) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Architecture, b.Architecture))
	})
	if len(result) == 0 {
		return nil, fmt.Errorf("cannot mirror %s: nothing in it was asked for", rel.what())
	}
	return result, nil
}

func loadUniverse(ctx context.Context, up *upstream, rel inRelease, architecture string, components []string) (*universe, error) {
	indices, err := rel.indices(components, architecture)
	if err != nil {
		return nil, err
	}
	universe, err := newUniverse(architecture)
	if err != nil {
		return nil, err
	}
	for _, ix := range indices {
		if err := up.read(ctx, rel, ix, universe.add); err != nil {
			return nil, errors.Join(err, universe.Close())
		}
	}
	if err := universe.seal(); err != nil {
		return nil, errors.Join(err, universe.Close())
	}
	return universe, nil
}

// collect adds the closure of what config wants to all, and counts wanted
// names that this architecture lacks.
func (u *universe) collect(config release.MirrorConfig, all map[snapshots.Ref]selected, unknown map[string]int) error {
	for _, name := range slices.Compact(slices.Sorted(slices.Values(config.Packages))) {
		if _, ok := u.names[name]; !ok {
			unknown[name]++
		}
	}
	members, err := u.close(config.Packages, config.Recommends)
	if err != nil {
		return err
	}
	for _, member := range members {
		stanza, err := u.stanza(member.candidate)
		if err != nil {
			return err
		}
		s, err := adopt(stanza)
		if err != nil {
			return fmt.Errorf("cannot take over %s %s: %w", member.name, member.version, err)
		}
		if other, known := all[s.Ref()]; known && other.SHA256 != s.SHA256 {
			return fmt.Errorf("cannot take over %s: upstream has two different files of that name, %s and %s", s.Ref(), other.source, s.source)
		}
		all[s.Ref()] = s
	}
	return nil
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
	ours := stanza.Without("MD5sum").Without("SHA1").With("Filename", pool.Filename(sum, s.file))
	if s.Package, err = snapshots.ParsePackage(ours.Bytes()); err != nil {
		return selected{}, err
	}
	if s.Size > maxPackage {
		return selected{}, fmt.Errorf("its size of %d bytes is above the limit of %d", s.Size, int64(maxPackage))
	}
	return s, nil
}
