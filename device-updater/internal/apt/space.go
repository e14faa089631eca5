package apt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"aptfleet/internal/deb"
)

// Measure tells a plan what it needs: of packages to fetch, how much of them is
// here already, and what they take once they are installed, as the archive's
// index says.
func (p *Private) Measure(ctx context.Context, plan *Plan) error {
	plan.Here = 0
	args := []string{"apt-cache", "-q", "show"}
	for _, f := range plan.Fetch {
		plan.Here += p.here(f)
		if f.Local == "" {
			args = append(args, f.Argument())
		}
	}
	plan.Installed = make(map[string]int64)
	if len(args) == 3 {
		return nil
	}
	var out bytes.Buffer
	if err := p.Run(ctx, "solve.conf", &out, args...); err != nil {
		return fmt.Errorf("cannot tell how much room the packages need: %w", err)
	}
	if err := installedSizes(&out, plan.Installed); err != nil {
		return fmt.Errorf("cannot tell how much room the packages need: %w", err)
	}
	return nil
}

// here is how many bytes of a package are on the disk. Nobody vouches for them.
func (p *Private) here(f Package) int64 {
	if info, err := os.Stat(p.file(f)); err == nil && info.Size() == f.Size {
		return f.Size
	}
	info, err := os.Stat(p.Path("archives/partial/" + f.File))
	if err != nil || f.Local != "" {
		return 0
	}
	return min(info.Size(), max(0, f.Size-1)) // it is not checked yet
}

// InstalledSizes returns how many bytes each package takes that dpkg knows in
// root, by its String. One that does not say is missing.
func InstalledSizes(root string) (map[string]int64, error) {
	f, err := os.Open(filepath.Join(root, "var/lib/dpkg/status"))
	if err != nil {
		return nil, fmt.Errorf("cannot read dpkg status: %w", err)
	}
	defer f.Close()
	sizes := make(map[string]int64)
	if err := installedSizes(f, sizes); err != nil {
		return nil, fmt.Errorf("cannot read dpkg status: %w", err)
	}
	return sizes, nil
}

// installedSizes reads Installed-Size, which is in KiB (Debian Policy 5.6.20).
func installedSizes(r io.Reader, sizes map[string]int64) error {
	stanzas := deb.NewStanzaReader(r, deb.MaxStanza)
	for {
		s, err := stanzas.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		kib, err := strconv.ParseInt(s.Get("Installed-Size"), 10, 64)
		if err != nil || kib < 0 || kib > 1<<40 {
			continue
		}
		p := Package{Name: s.Get("Package"), Architecture: s.Get("Architecture"), Version: s.Get("Version")}
		sizes[p.String()] = kib << 10
	}
}
