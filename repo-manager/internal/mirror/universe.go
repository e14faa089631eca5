package mirror

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"

	"aptfleet/internal/deb"
	"aptfleet/snapshots"
)

// universe is every package that the suites of a mirror have for one
// architecture. Of a name with several versions only one counts; see beats.
// Memory stays small: the stanzas lie in a nameless temporary file, and only
// those that a closure looks at are read back.
type universe struct {
	architecture string
	filter       filter // nil matches nothing
	names        map[string]*candidate
	virtual      map[string][]*candidate // by a name in Provides; set by seal
	file         *os.File
	spool        *bufio.Writer
	end          int64 // of what was written
}

// candidate is the version of a name that counts.
type candidate struct {
	name, version string
	from          *upstream
	sha256        snapshots.ID // zero if the stanza has none that can be read
	matches       bool         // the filter
	rival         *upstream    // a suite that has other bytes under the same version, or nil
	priority      int          // 0 is required; the higher, the less important
	essential     bool
	provides      []deb.Relation
	offset        int64
	size          int
}

// beats tells whether c counts rather than o, another candidate of its name. A
// version that the filter describes goes before those that it does not; then
// the priority of the suite decides, then the version, as for apt. What is left
// is one version in two suites, or twice in one: the suite that is named first
// has it, and the same bytes are no matter.
func (c *candidate) beats(o *candidate) bool {
	if c.matches != o.matches {
		return c.matches
	}
	return cmp.Or(
		cmp.Compare(c.from.suite.Priority, o.from.suite.Priority),
		deb.Compare(c.version, o.version),
		cmp.Compare(o.from.position, c.from.position),
	) > 0
}

// rivals tells whether nothing decides between two candidates of one name, and
// they are not the same.
func (c *candidate) rivals(o *candidate) bool {
	return c.matches == o.matches && c.from.suite.Priority == o.from.suite.Priority &&
		deb.Compare(c.version, o.version) == 0 && c.sha256 != o.sha256
}

// required is the priority of what no system works without.
const required = 0

// priorityOf orders the priorities of Policy 2.5; unknown ones come last.
func priorityOf(name string) int {
	known := []string{required: "required", "important", "standard", "optional", "extra"}
	if i := slices.Index(known, name); i >= 0 {
		return i
	}
	return len(known)
}

func newUniverse(architecture string, filter filter) (*universe, error) {
	file, err := os.CreateTemp("", "aptfleet-stanzas-")
	if err != nil {
		return nil, fmt.Errorf("cannot make room for the packages of %s: %w", architecture, err)
	}
	if err := os.Remove(file.Name()); err != nil {
		file.Close()
		return nil, fmt.Errorf("cannot make room for the packages of %s: %w", architecture, err)
	}
	return &universe{
		architecture: architecture,
		filter:       filter,
		names:        map[string]*candidate{},
		file:         file,
		spool:        bufio.NewWriterSize(file, 1<<20),
	}, nil
}

// Close gives the temporary file back.
func (u *universe) Close() error { return u.file.Close() }

// add takes one stanza of an index of a suite.
func (u *universe) add(from *upstream, stanza deb.Stanza) error {
	c := &candidate{
		from:      from,
		name:      stanza.Get("Package"),
		version:   stanza.Get("Version"),
		essential: stanza.Get("Essential") == "yes",
		priority:  priorityOf(stanza.Get("Priority")),
	}
	if err := deb.ValidPackageName(c.name); err != nil {
		return err
	}
	if _, err := deb.ParseVersion(c.version); err != nil {
		return fmt.Errorf("package %s: %w", c.name, err)
	}
	if architecture := stanza.Get("Architecture"); architecture != u.architecture && architecture != "all" {
		return fmt.Errorf("package %s is for %q, not for %s", c.name, architecture, u.architecture)
	}
	if sum, err := snapshots.ParseID(stanza.Get("SHA256")); err == nil {
		c.sha256 = sum
	}
	c.matches = u.filter != nil && u.filter(stanza)
	if other, known := u.names[c.name]; known {
		if c.rivals(other) {
			c.rival, other.rival = other.from, c.from
		}
		if !c.beats(other) {
			return nil
		}
	}
	groups, err := deb.ParseRelations(stanza.Get("Provides"))
	if err != nil {
		groups = nil // nobody can depend on what cannot be read
	}
	for _, group := range groups {
		c.provides = append(c.provides, group...)
	}
	c.offset, c.size = u.end, len(stanza.Bytes())
	n, err := u.spool.Write(stanza.Bytes())
	u.end += int64(n)
	if err != nil {
		return fmt.Errorf("cannot keep the stanza of %s: %w", c.name, err)
	}
	u.names[c.name] = c
	return nil
}

// seal ends the adding and makes the names in Provides known, each with its
// providers from the best candidate to the last.
func (u *universe) seal() error {
	if err := u.spool.Flush(); err != nil {
		return fmt.Errorf("cannot keep the stanzas of %s: %w", u.architecture, err)
	}
	u.virtual = map[string][]*candidate{}
	for _, c := range u.names {
		for _, p := range c.provides {
			if known := u.virtual[p.Name]; !slices.Contains(known, c) {
				u.virtual[p.Name] = append(known, c)
			}
		}
	}
	for _, providers := range u.virtual {
		slices.SortFunc(providers, func(a, b *candidate) int {
			return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.name, b.name))
		})
	}
	return nil
}

// stanza reads a candidate's paragraph back.
func (u *universe) stanza(c *candidate) (deb.Stanza, error) {
	raw := make([]byte, c.size)
	if _, err := io.ReadFull(io.NewSectionReader(u.file, c.offset, int64(c.size)), raw); err != nil {
		return deb.Stanza{}, fmt.Errorf("cannot read the stanza of %s back: %w", c.name, err)
	}
	return deb.ParseStanza(raw)
}

// satisfiedBy tells whether c is, or provides, what r asks for. A relation
// with a version is satisfied only by a Provides with a version (Policy 7.5).
func (u *universe) satisfiedBy(r deb.Relation, c *candidate) bool {
	if !r.Concerns(u.architecture) {
		return false
	}
	if c.name == r.Name && deb.Satisfies(c.version, r.Op, r.Version) {
		return true
	}
	for _, p := range c.provides {
		if p.Name == r.Name && (r.Op == "" || p.Op == "=" && deb.Satisfies(p.Version, r.Op, r.Version)) {
			return true
		}
	}
	return false
}

// options lists who could satisfy a group of alternatives, best first: the
// real packages in the order in which the group names them, then providers.
func (u *universe) options(group []deb.Relation) []*candidate {
	var found []*candidate
	take := func(r deb.Relation, c *candidate) {
		if c != nil && u.satisfiedBy(r, c) && !slices.Contains(found, c) {
			found = append(found, c)
		}
	}
	for _, r := range group {
		take(r, u.names[r.Name])
	}
	for _, r := range group {
		for _, c := range u.virtual[r.Name] {
			take(r, c)
		}
	}
	return found
}
