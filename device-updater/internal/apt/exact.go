package apt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"aptfleet/internal/aptroot"
	"aptfleet/internal/bom"
)

// LocalPackage is a package whose .deb lies at path, which ends in ".deb".
func LocalPackage(name, architecture, version, sha256 string, size int64, path string) Package {
	// apt's name for it in its cache (pkgAcqArchive's QuoteString).
	file := name + "_" + strings.ReplaceAll(version, ":", "%3a") + "_" + architecture + ".deb"
	return Package{Name: name, Architecture: architecture, Version: version, SHA256: sha256, Size: size, File: file, Local: path}
}

// Exact finds the packages of a bill of materials in the source: each must be
// there with exactly its version and hash, and together they must need nothing
// else. The list is sorted.
func (p *Private) Exact(ctx context.Context, b bom.BOM) ([]Package, error) {
	want := make([]Package, 0, len(b.Packages))
	for _, item := range b.Packages {
		want = append(want, Package{Name: item.Name, Architecture: item.Architecture, Version: item.Version, SHA256: item.SHA256})
	}
	found, err := p.resolve(ctx, want)
	if err != nil {
		return nil, err
	}
	index := make(map[string]Package)
	for _, f := range found {
		index[f.String()] = f
	}
	for _, w := range want {
		f, ok := index[w.String()]
		if !ok {
			return nil, fmt.Errorf("apt left %s out", w)
		}
		if f.SHA256 != w.SHA256 {
			return nil, fmt.Errorf("%s has SHA-256 %s in the archive, not %s", w, f.SHA256, w.SHA256)
		}
		delete(index, w.String())
	}
	for _, f := range found {
		if _, extra := index[f.String()]; extra {
			return nil, fmt.Errorf("the bill of materials lacks %s, which apt says the others need or which is essential", f)
		}
	}
	return found, nil
}

// Layer puts local packages on top of a list of the source: each takes the
// place of the package of its name, and what they need beyond the list comes
// from the source. Nothing of the list may have to leave or change for them.
// The result is sorted.
func (p *Private) Layer(ctx context.Context, list, local []Package) ([]Package, error) {
	if len(local) == 0 {
		return list, nil
	}
	native, err := p.Native(ctx)
	if err != nil {
		return nil, err
	}
	taken := make(map[string]bool)
	for _, l := range local {
		taken[slot(l, native)] = true
	}
	want := append([]Package{}, local...)
	for _, item := range list {
		if !taken[slot(item, native)] {
			want = append(want, item)
		}
	}
	found, err := p.resolve(ctx, want)
	if err != nil {
		return nil, fmt.Errorf("cannot put local packages on the release: %w", err)
	}
	// A build that has the version, the size and the relations of the archive's
	// is the same to apt: then it names that one.
	own := make(map[string]Package)
	for _, l := range local {
		own[l.String()] = l
	}
	have := make(map[string]bool)
	for i, f := range found {
		have[f.String()] = true
		if l, ok := own[f.String()]; ok {
			found[i] = l
		}
	}
	for _, w := range want {
		if !have[w.String()] {
			return nil, fmt.Errorf("cannot put local packages on the release: apt left %s out", w)
		}
	}
	return found, nil
}

// Architectures returns those whose packages the running system takes, its own
// first.
func (p *Private) Architectures(ctx context.Context) ([]string, error) {
	native, err := p.Native(ctx)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := p.Run(ctx, "solve.conf", &out, "dpkg", "--print-foreign-architectures"); err != nil {
		return nil, fmt.Errorf("cannot tell the architectures: %w", err)
	}
	return append([]string{native}, strings.Fields(out.String())...), nil
}

// resolve asks apt what the packages and all essential ones come to from an
// empty system. The packages themselves are not apt's choice.
func (p *Private) resolve(ctx context.Context, want []Package) ([]Package, error) {
	args := []string{"apt-get", "-q", "--print-uris", "install", "?essential"}
	local := make(map[string]Package)
	for _, w := range want {
		args = append(args, w.Argument())
		if w.Local != "" {
			local[w.Local] = w
		}
	}
	var out bytes.Buffer
	if err := p.Run(ctx, "solve.conf", &out, args...); err != nil {
		return nil, unmet(out.String(), err)
	}
	// apt names local files as they are, and has no hash of them.
	var archive bytes.Buffer
	var found []Package
	for line := range strings.Lines(out.String()) {
		uri, ok := strings.CutPrefix(line, "'file:")
		if uri, _, _ = strings.Cut(uri, "'"); ok && local[uri].Local != "" {
			found = append(found, local[uri])
			continue
		}
		archive.WriteString(line)
	}
	rest, err := aptroot.ParseURIs(&archive)
	if err != nil {
		return nil, err
	}
	found = append(found, rest...)
	slices.SortFunc(found, aptroot.Compare)
	return found, nil
}

// unmet adds to err what apt says about dependencies: that is not among its
// errors.
func unmet(out string, err error) error {
	_, text, ok := strings.Cut(out, "The following packages have unmet dependencies:\n")
	if !ok {
		return err
	}
	var said []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, " ") || len(said) == 3 {
			break
		}
		said = append(said, strings.Join(strings.Fields(line), " "))
	}
	if len(said) == 0 {
		return err
	}
	return fmt.Errorf("%s: %w", strings.Join(said, "; "), err)
}

// refuseOthers returns an error that names a package which apt fetched and
// nobody told it to.
func (p *Private) refuseOthers(plan Plan) error {
	entries, err := os.ReadDir(p.Path("archives"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot look through downloads: %w", err)
	}
	need := make(map[string]bool)
	for _, f := range plan.Fetch {
		need[f.File] = true
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".deb") && !need[e.Name()] {
			return fmt.Errorf("cannot install the list: apt wants %s too, which is not in it", e.Name())
		}
	}
	return nil
}
