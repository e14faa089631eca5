// Package apt lets the real apt and dpkg compute, fetch and install the exact
// packages of a release, in a root of the updater's own: lists, cache, sources
// and settings of the running system play no part.
package apt

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"aptfleet/internal/aptroot"
	"aptfleet/internal/deb"
)

// Installed is one package of a dpkg status file.
type Installed struct {
	Package
	Status string // "install ok installed": what is wished, what is wrong, what is
}

// wholeStatus is the Status of a package that nothing is wrong with, and of which
// nobody wishes anything else.
const wholeStatus = "install ok installed"

// whole reports whether the package is installed and nothing is wrong with it.
// The wish is ignored: what dpkg holds follows the list like all else.
func (i Installed) whole() bool { return strings.HasSuffix(i.Status, " ok installed") }

// ParseStatus reads a dpkg status file and returns what is neither purged nor
// unknown, sorted.
func ParseStatus(r io.Reader) ([]Installed, error) {
	var all []Installed
	stanzas := deb.NewStanzaReader(r, deb.MaxStanza)
	for {
		s, err := stanzas.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read dpkg status: %w", err)
		}
		i := Installed{Package: Package{Name: s.Get("Package"), Architecture: s.Get("Architecture"), Version: s.Get("Version")}, Status: s.Get("Status")}
		if strings.HasSuffix(i.Status, " not-installed") || i.Version == "" {
			continue
		}
		if err := i.Check(); err != nil {
			return nil, fmt.Errorf("cannot read dpkg status: package %q: %w", i.Name, err)
		}
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b Installed) int { return aptroot.Compare(a.Package, b.Package) })
	return all, nil
}

// Plan is what turns what is installed into the exact list.
type Plan struct {
	List   []Package   // what must be installed afterwards, and nothing else
	Fetch  []Package   // of List: not installed like that yet, or damaged
	Remove []Installed // to purge, left-over configuration included
	Native string      // the device's architecture
	Mend   bool        // something must be mended that no package can: a directory's mode, a hold

	Here      int64            // bytes of Fetch that are on the disk already; see Measure
	Installed map[string]int64 // bytes that packages of Fetch take when they are installed, by their String; one that is missing does not say

	old map[string]string // version that is installed now, by slot
}

// Change is one line of what a plan does. Old or New is "" for what comes or
// goes.
type Change struct {
	Name string `json:"name"`
	Old  string `json:"old,omitempty"`
	New  string `json:"new,omitempty"`
}

// Sign is how people see the change: "+" comes, "-" goes, "↑" or "↓" changes its
// version, "=" is another build of the same.
func (c Change) Sign() string {
	switch {
	case c.Old == "":
		return "+"
	case c.New == "":
		return "-"
	}
	switch order := deb.Compare(c.Old, c.New); {
	case order < 0:
		return "↑"
	case order > 0:
		return "↓"
	}
	return "="
}

// Changes lists what the plan does, sorted by name.
func (p Plan) Changes() []Change {
	all := []Change{}
	for _, f := range p.Fetch {
		all = append(all, Change{Name: f.Name, Old: p.old[slot(f, p.Native)], New: f.Version})
	}
	for _, r := range p.Remove {
		all = append(all, Change{Name: r.Name, Old: r.Version})
	}
	slices.SortFunc(all, func(a, b Change) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.New, b.New)) })
	return all
}

// MakePlan compares. known holds the hashes under which packages were installed
// by an earlier transaction (by String()); an installed package whose known
// hash differs is fetched again, and so is a local one whose hash is not known.
func MakePlan(list []Package, installed []Installed, known map[string]string, native string) Plan {
	plan := Plan{List: list, Native: native, old: make(map[string]string)}
	have := make(map[string]Installed)
	for _, i := range installed {
		have[slot(i.Package, native)] = i
		if strings.HasSuffix(i.Status, " installed") {
			plan.old[slot(i.Package, native)] = i.Version
		}
	}
	want := make(map[string]bool)
	for _, p := range list {
		want[slot(p, native)] = true
		i, ok := have[slot(p, native)]
		same := ok && i.whole() && i.String() == p.String()
		if hash, recorded := known[p.String()]; same && hash != p.SHA256 && (recorded || p.Local != "") {
			same = false
		}
		if !same {
			plan.Fetch = append(plan.Fetch, p)
		}
		plan.Mend = plan.Mend || ok && i.whole() && i.Status != wholeStatus
	}
	for _, i := range installed {
		if !want[slot(i.Package, native)] {
			plan.Remove = append(plan.Remove, i)
		}
	}
	return plan
}

// Repair makes the plan install packages again of which files were damaged,
// named as dpkg names them: "name" or "name:architecture". Those that it
// installs anyway, and those that leave, are fine as they are.
func (p *Plan) Repair(names []string) {
	for _, item := range p.List {
		damaged := slices.Contains(names, item.Name) || slices.Contains(names, slot(item, p.Native))
		if damaged && !slices.ContainsFunc(p.Fetch, func(f Package) bool { return slot(f, p.Native) == slot(item, p.Native) }) {
			p.Fetch = append(p.Fetch, item)
		}
	}
	slices.SortFunc(p.Fetch, aptroot.Compare)
}

// Installs reports whether the plan installs a package, named as dpkg names it.
func (p Plan) Installs(name string) bool {
	return slices.ContainsFunc(p.Fetch, func(f Package) bool { return f.Name == name || slot(f, p.Native) == name })
}

// slot names what only one version can be installed of: dpkg counts packages
// for all architectures as native ones.
func slot(p Package, native string) string {
	if p.Architecture == "all" {
		return p.Name + ":" + native
	}
	return p.Name + ":" + p.Architecture
}

// Empty reports whether nothing is to be done.
func (p Plan) Empty() bool { return len(p.Fetch) == 0 && len(p.Remove) == 0 && !p.Mend }

// FetchSize is how many bytes the packages to fetch have.
func (p Plan) FetchSize() int64 {
	var sum int64
	for _, f := range p.Fetch {
		sum += f.Size
	}
	return sum
}

// arguments tells apt-get install the whole list, so that its solver has
// nothing to choose, and what leaves.
func (p Plan) arguments() []string {
	var args []string
	for _, item := range p.List {
		args = append(args, item.Argument())
	}
	for _, gone := range p.Remove {
		name := gone.Name
		if gone.Architecture != "all" && gone.Architecture != p.Native {
			name += ":" + gone.Architecture
		}
		args = append(args, name+"-")
	}
	return args
}

// reinstalls are packages of which another build of the same version is
// installed, or of which files were damaged: apt would leave them.
func (p Plan) reinstalls(installed []Installed) []Package {
	have := make(map[string]bool)
	for _, i := range installed {
		if i.whole() {
			have[i.String()] = true
		}
	}
	var again []Package
	for _, f := range p.Fetch {
		if have[f.String()] {
			again = append(again, f)
		}
	}
	return again
}

// extendedStates is the file in which apt keeps what was installed
// automatically: everything but the top-level packages, whatever led there.
func extendedStates(list []Package, topLevel []string, native string) string {
	var b bytes.Buffer
	for _, p := range list {
		if slices.Contains(topLevel, p.Name) {
			continue
		}
		arch := p.Architecture
		if arch == "all" {
			arch = native
		}
		fmt.Fprintf(&b, "Package: %s\nArchitecture: %s\nAuto-Installed: 1\n\n", p.Name, arch)
	}
	return b.String()
}

// Mismatch compares what dpkg says is installed with the list and names the
// first difference; "" if there is none.
func Mismatch(list []Package, found []Installed) string {
	have := make(map[string]bool)
	for _, i := range found {
		if i.Status != wholeStatus {
			return fmt.Sprintf("%s is %q", i.Name, i.Status)
		}
		have[i.String()] = true
	}
	want := make(map[string]bool)
	for _, p := range list {
		want[p.String()] = true
		if !have[p.String()] {
			return p.String() + " is not installed"
		}
	}
	for _, i := range found {
		if !want[i.String()] {
			return i.String() + " is installed and not in the list"
		}
	}
	return ""
}
