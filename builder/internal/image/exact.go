package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"aptfleet/internal/aptroot"
	"aptfleet/internal/bom"
	"aptfleet/internal/deb"
)

// Exactly makes the image of the packages of a bill of materials, and of nothing
// else: text is what devices are given, list what it says.
func (p *Plan) Exactly(text []byte, list bom.BOM) {
	p.BOM, p.Packages = text, nil
	for _, item := range list.Packages {
		p.Packages = append(p.Packages, aptroot.Package{Name: item.Name, Architecture: item.Architecture, Version: item.Version}.Argument())
	}
}

// vouched asks the signed indices of the base for each package of the bill of
// materials: what apt installs by them has the hashes of the bill.
func (b *builder) vouched(ctx context.Context) error {
	list, err := bom.Decode(b.BOM)
	if err != nil {
		return err
	}
	root, err := aptroot.New(filepath.Join(b.dir, "apt"), aptroot.Source{URL: b.Base, Distribution: b.Distribution, Components: b.Components, Keyring: b.Keyring, CA: b.CA})
	if err != nil {
		return err
	}
	if err := root.Update(ctx); err != nil {
		return err
	}
	paths, err := root.Lists()
	if err != nil {
		return err
	}
	hashes := make(map[string]string)
	for _, path := range paths {
		if err := readHashes(path, hashes); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(path), err)
		}
	}
	for _, p := range list.Packages {
		switch hash, offered := hashes[p.String()]; {
		case !offered:
			return fmt.Errorf("the bill of materials has %s, and %s has it not", p, b.Base)
		case hash != p.SHA256:
			return fmt.Errorf("%s has SHA-256 %s in %s, and %s in the bill of materials", p, hash, b.Base, p.SHA256)
		}
	}
	return nil
}

// readHashes adds the SHA-256 of each package of an index, by
// name:architecture=version.
func readHashes(path string, hashes map[string]string) (err error) {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	stanzas := deb.NewStanzaReader(file, deb.MaxStanza)
	for {
		s, err := stanzas.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		p := bom.Package{Name: s.Get("Package"), Architecture: s.Get("Architecture"), Version: s.Get("Version")}
		hashes[p.String()] = s.Get("SHA256")
	}
}
