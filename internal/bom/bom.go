// Package bom reads and writes bills of materials: the exact packages of a
// product in one state. docs/device-protocol.md has the format. There is one
// way to write a bill of materials, so its SHA-256 names it.
package bom

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"aptfleet/internal/deb"
)

// Bounds of what is read.
const (
	MaxSize     = 8 << 20 // bytes
	MaxPackages = 20_000
)

// BOM is the exact list of packages that a product is in one state.
type BOM struct {
	State        string   // id: 64 hex digits
	Product      string   // its name
	Architecture string   // native; packages may be of "all" and of others
	Modules      []string // optional modules that were chosen, sorted
	TopLevel     []string // packages that were asked for, sorted: all else came by dependency
	Recommends   bool     // recommended packages count
	Packages     []Package
}

// Package is one line.
type Package struct {
	Name         string
	Architecture string // as in the package: may be "all"
	Version      string
	SHA256       string // lower-case hex, of the .deb
}

// String returns name:arch=version.
func (p Package) String() string { return p.Name + ":" + p.Architecture + "=" + p.Version }

const (
	format = "Aptfleet-BOM: 1"
	yes    = "yes"
	no     = "no"
)

// Encode writes a bill of materials, whatever the order of its lists.
func (b BOM) Encode() []byte {
	var out bytes.Buffer
	recommends := no
	if b.Recommends {
		recommends = yes
	}
	fmt.Fprintln(&out, format)
	for _, field := range [][2]string{
		{"State", b.State}, {"Product", b.Product}, {"Architecture", b.Architecture}, {"Modules", words(b.Modules)},
		{"Packages", words(b.TopLevel)}, {"Recommends", recommends},
	} {
		fmt.Fprintln(&out, strings.TrimRight(field[0]+": "+field[1], " "))
	}
	fmt.Fprintln(&out)
	for _, p := range slices.SortedFunc(slices.Values(b.Packages), compare) {
		fmt.Fprintf(&out, "%s %s\n", p, p.SHA256)
	}
	return out.Bytes()
}

func words(list []string) string { return strings.Join(slices.Sorted(slices.Values(list)), " ") }

func compare(a, b Package) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Architecture, b.Architecture), cmp.Compare(a.Version, b.Version))
}

// Sum is the name of an encoded bill of materials: the SHA-256 of its bytes in
// lower-case hex.
func Sum(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

var (
	sumPattern  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9.+-]{0,63}$`)
)

// Decode reads what Encode wrote, and nothing else: a text that Encode would
// have written differently is refused.
func Decode(text []byte) (BOM, error) {
	b, err := decode(text)
	if err == nil && !bytes.Equal(b.Encode(), text) {
		err = errors.New("it is not written in the one way there is")
	}
	if err != nil {
		return BOM{}, fmt.Errorf("cannot read bill of materials: %w", err)
	}
	return b, nil
}

func decode(text []byte) (BOM, error) {
	if len(text) > MaxSize {
		return BOM{}, fmt.Errorf("it has more than %d bytes", MaxSize)
	}
	head, list, ok := strings.Cut(string(text), "\n\n")
	lines := strings.Split(head, "\n")
	if !ok || lines[0] != format || len(lines) != 7 {
		return BOM{}, fmt.Errorf("it does not begin with %q and six fields", format)
	}
	var b BOM
	var recommends, modules, topLevel string
	for i, field := range []struct {
		name string
		into *string
	}{{"State", &b.State}, {"Product", &b.Product}, {"Architecture", &b.Architecture}, {"Modules", &modules}, {"Packages", &topLevel}, {"Recommends", &recommends}} {
		value, ok := strings.CutPrefix(lines[i+1], field.name+":")
		if !ok {
			return BOM{}, fmt.Errorf("line %d is not %s", i+2, field.name)
		}
		*field.into = strings.TrimPrefix(value, " ")
	}
	b.Modules, b.TopLevel, b.Recommends = strings.Fields(modules), strings.Fields(topLevel), recommends == yes
	switch {
	case !sumPattern.MatchString(b.State):
		return BOM{}, fmt.Errorf("%q is not the id of a state", b.State)
	case !ValidName(b.Product):
		return BOM{}, fmt.Errorf("%q is not the name of a product", b.Product)
	}
	if err := deb.ValidArchitecture(b.Architecture); err != nil {
		return BOM{}, err
	}
	for _, m := range b.Modules {
		if !ValidName(m) {
			return BOM{}, fmt.Errorf("%q is not the name of a module", m)
		}
	}
	for _, name := range b.TopLevel {
		if err := deb.ValidPackageName(name); err != nil {
			return BOM{}, err
		}
	}
	for line := range strings.Lines(list) {
		if len(b.Packages) == MaxPackages {
			return BOM{}, fmt.Errorf("it has more than %d packages", MaxPackages)
		}
		p, err := decodePackage(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return BOM{}, err
		}
		if n := len(b.Packages); n > 0 && b.Packages[n-1].Name == p.Name && b.Packages[n-1].Architecture == p.Architecture {
			return BOM{}, fmt.Errorf("%s:%s is there twice", p.Name, p.Architecture)
		}
		b.Packages = append(b.Packages, p)
	}
	return b, nil
}

func decodePackage(line string) (Package, error) {
	item, sum, ok1 := strings.Cut(line, " ")
	name, version, ok2 := strings.Cut(item, "=")
	name, architecture, ok3 := strings.Cut(name, ":")
	if !ok1 || !ok2 || !ok3 || !sumPattern.MatchString(sum) {
		return Package{}, fmt.Errorf("%q is not name:architecture=version and a SHA-256", line)
	}
	if err := deb.ValidPackageName(name); err != nil {
		return Package{}, err
	}
	if err := deb.ValidArchitecture(architecture); err != nil {
		return Package{}, err
	}
	if _, err := deb.ParseVersion(version); err != nil {
		return Package{}, err
	}
	return Package{Name: name, Architecture: architecture, Version: version, SHA256: sum}, nil
}

// ValidName tells whether a product or a module may be called that.
func ValidName(name string) bool { return namePattern.MatchString(name) }
