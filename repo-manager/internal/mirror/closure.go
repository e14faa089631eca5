package mirror

import (
	"fmt"
	"slices"
	"strings"

	"aptfleet/internal/deb"
)

// chosen is a candidate and why it was taken.
type chosen struct {
	*candidate
	by     *chosen // nil for a root
	reason string  // the relation, or what makes it a root
}

// chain explains a choice: "libfoo 1.0 ← bar 2.0 (Depends: libfoo) ← wanted".
func (c *chosen) chain() string {
	var b strings.Builder
	for ; c != nil; c = c.by {
		fmt.Fprintf(&b, "%s %s", c.name, c.version)
		if c.by == nil {
			fmt.Fprintf(&b, " (%s)", c.reason)
		} else {
			b.WriteString(", needed by ")
		}
	}
	return b.String()
}

// need is a group of alternatives that somebody has.
type need struct {
	by    *chosen
	field string
	group []deb.Relation
}

func (n need) String() string { return deb.Alternatives(n.group) }

// closure is the computation of a set of packages that has, for every
// Depends and Pre-Depends of its members, a member that satisfies it. A set
// to choose from is wanted, not one that can be installed at once, so
// Conflicts play no part.
type closure struct {
	universe   *universe
	recommends bool
	members    map[string]*chosen
	queue      []*chosen // whose relations were not looked at
	undecided  []need    // with several options
}

// root is a package that a closure starts from.
type root struct{ name, reason string }

// close computes the closure of roots and of what every device has, and returns
// its members by name. Names that the universe lacks are left out: whether that
// is an error depends on other architectures. The result depends on nothing but
// its input.
//
// Where a relation leaves a choice, a member that satisfies it wins; to know
// as many members as possible, all relations without a choice come first.
func (u *universe) close(roots []root, recommends bool) ([]*chosen, error) {
	c := &closure{universe: u, recommends: recommends, members: map[string]*chosen{}}
	roots = slices.Clone(roots)
	slices.SortStableFunc(roots, func(a, b root) int { return strings.Compare(a.name, b.name) })
	for _, r := range roots {
		if candidate, ok := u.names[r.name]; ok {
			c.take(candidate, nil, r.reason)
		}
	}
	for _, name := range u.base() {
		c.take(u.names[name], nil, "part of every device")
	}
	for {
		switch {
		case len(c.queue) > 0:
			next := c.queue[0]
			c.queue = c.queue[1:]
			if err := c.follow(next); err != nil {
				return nil, err
			}
		case len(c.undecided) > 0:
			next := c.undecided[0]
			c.undecided = c.undecided[1:]
			if !c.isMet(next) {
				c.take(u.options(next.group)[0], next.by, next.String())
			}
		default:
			members := make([]*chosen, 0, len(c.members))
			for _, m := range c.members {
				members = append(members, m)
			}
			slices.SortFunc(members, func(a, b *chosen) int { return strings.Compare(a.name, b.name) })
			return members, nil
		}
	}
}

// base lists what every device has, by name: what is Essential or of priority
// required, and apt.
func (u *universe) base() []string {
	var names []string
	for name, c := range u.names {
		if c.essential || c.priority == required || name == "apt" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (c *closure) take(candidate *candidate, by *chosen, reason string) {
	if _, known := c.members[candidate.name]; known {
		return
	}
	member := &chosen{candidate: candidate, by: by, reason: reason}
	c.members[candidate.name] = member
	c.queue = append(c.queue, member)
}

// follow looks at the relations of one member.
func (c *closure) follow(member *chosen) error {
	stanza, err := c.universe.stanza(member.candidate)
	if err != nil {
		return err
	}
	fields := []string{"Pre-Depends", "Depends"}
	if c.recommends {
		fields = append(fields, "Recommends")
	}
	for _, field := range fields {
		groups, err := deb.ParseRelations(stanza.Get(field))
		if err != nil {
			return fmt.Errorf("cannot read %s of %s: %w", field, member.chain(), err)
		}
		for _, group := range groups {
			if err := c.meet(need{by: member, field: field, group: group}); err != nil {
				return err
			}
		}
	}
	return nil
}

// meet satisfies a need now if there is only one way, else later.
func (c *closure) meet(n need) error {
	if c.isMet(n) {
		return nil
	}
	switch options := c.universe.options(n.group); len(options) {
	case 0:
		if n.field == "Recommends" {
			return nil
		}
		return fmt.Errorf("cannot satisfy %q for %s: the mirrored components have no such package; it is needed by %s",
			n, c.universe.architecture, n.by.chain())
	case 1:
		c.take(options[0], n.by, n.String())
	default:
		c.undecided = append(c.undecided, n)
	}
	return nil
}

func (c *closure) isMet(n need) bool {
	for _, r := range n.group {
		if m, ok := c.members[r.Name]; ok && c.universe.satisfiedBy(r, m.candidate) {
			return true
		}
		for _, provider := range c.universe.virtual[r.Name] {
			if _, ok := c.members[provider.name]; ok && c.universe.satisfiedBy(r, provider) {
				return true
			}
		}
	}
	return false
}
