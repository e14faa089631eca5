package release

import (
	"context"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"

	"aptfleet/snapshots"
)

// CreateMirror adds a mirror to a pipeline. It is empty until it is updated.
func (e *Engine) CreateMirror(ctx context.Context, a Actor, pipeline, name string, config MirrorConfig) (Component, error) {
	if err := config.validate("create", name); err != nil {
		return Component{}, err
	}
	return e.createComponent(ctx, a, Component{Pipeline: pipeline, Name: name, Kind: Mirror, Mirror: &config})
}

// SetMirror changes what a mirror takes from where: config as a whole takes
// the place of what was. What the mirror holds stays until its next update.
// The audit trail says what was changed. With dryRun it only tells whether it
// could be, and what the mirror would be.
func (e *Engine) SetMirror(ctx context.Context, a Actor, pipeline, name string, config MirrorConfig, dryRun bool) (Component, error) {
	if err := config.validate("change", name); err != nil {
		return Component{}, err
	}
	var changed Component
	err := e.do(&job{ctx: ctx, pipeline: pipeline, act: func(ctx context.Context) error {
		l, err := e.line(pipeline)
		if err != nil {
			return err
		}
		before, err := l.component(name, Mirror)
		if err != nil {
			return err
		}
		changed = before
		changed.Mirror = &config
		what := config.changes(*before.Mirror)
		if len(what) == 0 || dryRun {
			return nil
		}
		t := e.turn("set", l)
		t.batch.Mirrors = []Component{changed}
		i := slices.IndexFunc(t.line.Components, func(c Component) bool { return c.Name == name })
		t.line.Components[i] = changed
		t.act(a, "set", "mirror "+name, strings.Join(what, "; "))
		t.event("component", name)
		return t.commit(ctx)
	}})
	return changed, err
}

// validate refuses what can be no mirror, whatever its upstream has.
func (m MirrorConfig) validate(verb, name string) error {
	refuse := func(cause string, args ...any) error {
		return fail(Invalid, "repo-manager mirror create --help", "cannot %s mirror %s: %s", verb, name, fmt.Sprintf(cause, args...))
	}
	if len(m.Suites) == 0 {
		return refuse("it has no suite")
	}
	for i, s := range m.Suites {
		for _, missing := range []struct {
			what  string
			empty bool
		}{
			{"suite", s.Suite == ""},
			{"URL", s.URL == ""},
			{"upstream component", len(s.Components) == 0},
			{"keyring: what is mirrored must be signed by a known key", len(s.Keyring) == 0},
		} {
			if missing.empty {
				return refuse("it has no %s", missing.what)
			}
		}
		if slices.ContainsFunc(m.Suites[:i], func(o MirrorSuite) bool { return o.URL == s.URL && o.Suite == s.Suite }) {
			return refuse("suite %s of %s is named twice", s.Suite, s.URL)
		}
	}
	wants := len(m.Packages) > 0 || m.Filter != ""
	switch {
	case !wants && !m.All:
		return refuse("it wants no package: name packages or a filter, or say that it takes all")
	case wants && m.All:
		return refuse("it takes all packages, so it needs no names and no filter")
	case m.FilterDeps && m.Filter == "":
		return refuse("it has no filter whose dependencies could follow")
	}
	return nil
}

// changes says for the audit trail what m changes of before.
func (m MirrorConfig) changes(before MirrorConfig) []string {
	var what []string
	switch now := m.Where(); {
	case now != before.Where():
		what = append(what, "suites "+now)
	case !reflect.DeepEqual(m.Suites, before.Suites):
		what = append(what, "keyrings")
	}
	if added, gone := minus(m.Packages, before.Packages), minus(before.Packages, m.Packages); len(added)+len(gone) > 0 {
		what = append(what, "packages"+few(" +", added)+few(" -", gone))
	}
	for _, field := range []struct {
		name     string
		old, now any
	}{
		{"filter", before.Filter, m.Filter}, {"dependencies of the filter", before.FilterDeps, m.FilterDeps},
		{"all", before.All, m.All}, {"recommends", before.Recommends, m.Recommends},
	} {
		if field.old != field.now {
			what = append(what, fmt.Sprintf("%s: %v", field.name, field.now))
		}
	}
	return what
}

// Where names the suites for people: "https://mirror.example/debian trixie main".
func (m MirrorConfig) Where() string {
	texts := make([]string, len(m.Suites))
	for i, s := range m.Suites {
		texts[i] = s.URL + " " + s.Suite + " " + strings.Join(s.Components, " ")
		if s.Priority != 0 {
			texts[i] += fmt.Sprintf(" (priority %d)", s.Priority)
		}
	}
	return strings.Join(texts, ", ")
}

// minus returns what a has and b has not.
func minus(a, b []string) []string {
	var only []string
	for _, v := range a {
		if !slices.Contains(b, v) {
			only = append(only, v)
		}
	}
	return only
}

// few writes names down, the first of many.
func few(sign string, names []string) string {
	const shown = 20
	text := ""
	for _, name := range names[:min(len(names), shown)] {
		text += sign + name
	}
	if more := len(names) - shown; more > 0 {
		text += fmt.Sprintf("%sanother %d", sign, more)
	}
	return text
}

// Head returns the newest state of a pipeline.
func (e *Engine) Head(_ context.Context, pipeline string) (snapshots.State, error) {
	l, err := e.line(pipeline)
	if err != nil {
		return snapshots.State{}, err
	}
	return l.head(), nil
}

// mustNotClash refuses what a mirror is about to hold, by name, if another
// component has other bytes under the same name, version and architecture: apt
// would see one version with two contents. What the mirror has already is not
// asked again. The mirror must be read.
func (d *draft) mustNotClash(ctx context.Context, component string, after map[string][]snapshots.Package) error {
	fresh := make(map[snapshots.Ref][32]byte)
	for name, packages := range after {
		for _, p := range packages {
			if !slices.ContainsFunc(d.names[packageName{component, name}], func(o snapshots.Package) bool { return o.Ref() == p.Ref() && o.SHA256 == p.SHA256 }) {
				fresh[p.Ref()] = p.SHA256
			}
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	for _, c := range d.line.Components {
		if c.Name == component {
			continue
		}
		for p, err := range d.each(ctx, c) {
			if err != nil {
				return because(err, "cannot replace mirror %s", component)
			}
			if sum, same := fresh[p.Ref()]; same && sum != p.SHA256 {
				return fail(Conflict, fmt.Sprintf("take it out with: repo-manager package remove %s %s=%s", c.Name, p.Name, p.Version),
					"cannot replace mirror %s: %s is in %s with other bytes (sha256 %x, upstream has %x)", component, p.Ref(), c.Name, p.SHA256, sum)
			}
		}
	}
	return nil
}

// each yields what a component holds after the edits so far. What is for all
// architectures may come once for each of them.
func (d *draft) each(ctx context.Context, c Component) iter.Seq2[snapshots.Package, error] {
	return func(yield func(snapshots.Package, error) bool) {
		for at, packages := range d.names {
			if at.component != c.Name {
				continue
			}
			for _, p := range packages {
				if !yield(p, nil) {
					return
				}
			}
		}
		for _, key := range d.line.keys(c) {
			for p, err := range snapshots.All(ctx, d.e.Chunks, d.line.head(), key) {
				if _, edited := d.names[packageName{c.Name, p.Name}]; edited && err == nil {
					continue
				}
				if !yield(p, err) {
					return
				}
			}
		}
	}
}
