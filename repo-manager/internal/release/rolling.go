package release

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"aptfleet/internal/deb"
	"aptfleet/internal/faultpoint"
	"aptfleet/snapshots"
)

// draft is a batch of edits under way: the head of a pipeline as it will be
// after the edits so far.
type draft struct {
	*turn
	base      *line // that the edits are of
	job       *job  // whose edit is under way
	wanted    []*wanted
	wants     map[poolName]*wanted // the same
	placed    map[poolName]bool    // what is in the pool by now, also for a draft before
	put       []File               // of this, what the pool had not
	announced bool                 // files of this draft, or of one before
	names     map[packageName][]snapshots.Package
	before    map[snapshots.Ref]Accepted          // uploads that expect found
	asked     map[snapshots.Ref]bool              // packages whose uploads expect looked for
	touched   map[packageName][]snapshots.Package // what stood in the head before the first change
	uploads   []Accepted
	changes   []string // for people: what came and went
	actors    []string
	head      snapshots.State // after commit
}

type packageName struct{ component, name string }

func newDraft(e *Engine, l *line) *draft {
	return &draft{
		turn:    e.turn("upload", l),
		base:    l,
		wants:   make(map[poolName]*wanted),
		placed:  make(map[poolName]bool),
		names:   make(map[packageName][]snapshots.Package),
		touched: make(map[packageName][]snapshots.Package),
	}
}

// named returns the versions of a package in a component, as the edits so
// far left them.
func (d *draft) named(ctx context.Context, component, name string) ([]snapshots.Package, error) {
	at := packageName{component, name}
	if packages, ok := d.names[at]; ok {
		return packages, nil
	}
	found, err := d.e.find(ctx, d.line, component, []string{name})
	if err != nil {
		return nil, err
	}
	d.names[at] = found[name]
	return found[name], nil
}

// expect prepares for uploads: it looks all their names, and what was uploaded
// before, up in one pass. What fails here fails again when an upload itself needs
// it, and is then its error alone.
func (d *draft) expect(ctx context.Context, uploads []Incoming) {
	names := make([]string, len(uploads))
	for i, in := range uploads {
		names[i] = in.Package.Name
	}
	slices.Sort(names)
	names = slices.Compact(names)
	for _, c := range d.line.Components {
		if found, err := d.e.find(ctx, d.line, c.Name, names); err == nil {
			for _, name := range names {
				d.names[packageName{c.Name, name}] = found[name]
			}
		}
	}
	refs := make([]snapshots.Ref, len(uploads))
	for i, in := range uploads {
		refs[i] = in.ref()
	}
	if found, err := d.e.Store.Accepted(ctx, d.line.Name, refs...); err == nil {
		d.before, d.asked = found, make(map[snapshots.Ref]bool, len(refs))
		for _, ref := range refs {
			d.asked[ref] = true
		}
	}
}

// accepted finds the newest upload of a package before this batch.
func (d *draft) accepted(ctx context.Context, ref snapshots.Ref) (a Accepted, ok bool, err error) {
	found := d.before
	if !d.asked[ref] {
		found, err = d.e.Store.Accepted(ctx, d.line.Name, ref)
	}
	a, ok = found[ref]
	return a, ok, err
}

// find looks names, which are sorted, up in all indices of a component in the
// head. What is for all architectures appears once.
func (e *Engine) find(ctx context.Context, l *line, component string, names []string) (map[string][]snapshots.Package, error) {
	seen := make(map[snapshots.Ref]bool)
	all := make(map[string][]snapshots.Package)
	for _, key := range l.keys(Component{Name: component}) {
		found, err := snapshots.FindAll(ctx, e.Chunks, l.head(), key, names)
		if err != nil {
			return nil, err
		}
		for name, packages := range found {
			for _, p := range packages {
				if !seen[p.Ref()] {
					seen[p.Ref()] = true
					all[name] = append(all[name], p)
				}
			}
		}
	}
	return all, nil
}

// brought tells whether a package came with this draft, or stood in the head.
func (d *draft) brought(component string, p snapshots.Package) bool {
	before, touched := d.touched[packageName{component, p.Name}]
	return touched && !slices.ContainsFunc(before, equalTo(p))
}

// set replaces the versions of a package.
func (d *draft) set(component, name string, packages []snapshots.Package) {
	at := packageName{component, name}
	if _, ok := d.touched[at]; !ok {
		d.touched[at] = d.names[at]
	}
	d.names[at] = packages
}

// say records for people what an edit did.
func (d *draft) say(a Actor, format string, args ...any) {
	d.changes = append(d.changes, fmt.Sprintf(format, args...))
	if !slices.Contains(d.actors, a.Name) {
		d.actors = append(d.actors, a.Name)
	}
}

// commit makes the edits a new state, publishes it and answers with it. A
// draft that changes nothing publishes nothing.
func (d *draft) commit(ctx context.Context) error {
	d.head = d.line.head()
	for _, w := range d.wanted {
		if w.records {
			d.batch.Files = append(d.batch.Files, w.File)
		}
	}
	faultpoint.Hit("upload:in-pool")
	if edits := d.edits(); len(edits) > 0 {
		head, err := snapshots.Apply(ctx, d.e.Chunks, d.head, edits...)
		if err != nil {
			return because(err, "cannot make the new state")
		}
		d.head = head
	}
	if d.head.ID() == d.line.head().ID() {
		if len(d.wanted) > 0 { // what was lost is back
			if err := d.e.ensureSynced(); err != nil {
				return because(err, "cannot sync the data directory")
			}
		}
		if err := d.giveUp(ctx); err != nil {
			return err
		}
		return d.e.catchUp(ctx, d.line)
	}
	if err := d.follow(ctx, strings.Join(d.actors, ", "), summary(d.changes), d.head); err != nil {
		return err
	}
	for _, u := range d.uploads {
		u.State = d.head.ID()
		d.batch.Uploads = append(d.batch.Uploads, u)
		d.event("upload", u.Name)
	}
	err := d.turn.commit(ctx)
	if err != nil && !isUnpublished(err) {
		return err
	}
	if err := d.tidy(ctx, true); err != nil {
		d.e.Log.Warn("cannot tidy up after a batch; the next one will", "error", err)
	}
	return err
}

// summary is the first few changes.
func summary(changes []string) string {
	const shown = 3
	if len(changes) <= shown {
		return strings.Join(changes, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(changes[:shown], ", "), len(changes)-shown)
}

// edits turns what the draft says into edits of its head.
func (d *draft) edits() []snapshots.Edit {
	byComponent := make(map[string]*snapshots.Edit)
	for at, before := range d.touched {
		edit := byComponent[at.component]
		if edit == nil {
			edit = &snapshots.Edit{Component: at.component}
			byComponent[at.component] = edit
		}
		after := d.names[at]
		for _, p := range before {
			if !slices.ContainsFunc(after, equalTo(p)) {
				edit.Remove = append(edit.Remove, p.Ref())
			}
		}
		for _, p := range after {
			if !slices.ContainsFunc(before, equalTo(p)) {
				edit.Put = append(edit.Put, p)
			}
		}
	}
	var edits []snapshots.Edit
	for _, edit := range byComponent {
		edits = append(edits, *edit)
	}
	slices.SortFunc(edits, func(a, b snapshots.Edit) int { return cmp.Compare(a.Component, b.Component) })
	return edits
}

// add applies the rules of a rolling repository to one upload.
func (d *draft) add(ctx context.Context, a Actor, component string, in Incoming, allowOlder bool) (Upload, error) {
	repository, err := d.line.component(component, Repository)
	if err != nil {
		return Upload{}, err
	}
	p := in.Package
	if p.Architecture != "all" && !slices.Contains(d.line.Architectures, p.Architecture) {
		return Upload{}, fail(Refused, "build it for one of these, or create a pipeline with that architecture",
			"cannot add %s: its architecture is %s, pipeline %s has %s and all", in.Name, p.Architecture, d.line.Name, strings.Join(d.line.Architectures, ", "))
	}
	answer := Upload{Name: p.Name, Version: p.Version, Architecture: p.Architecture, SHA256: hex.EncodeToString(p.SHA256[:]), Size: p.Size}
	existing, err := d.named(ctx, component, p.Name)
	if err != nil {
		return Upload{}, because(err, "cannot add %s", in.Name)
	}
	same := slices.IndexFunc(existing, func(q snapshots.Package) bool {
		return q.Version == p.Version && q.Architecture == p.Architecture && q.SHA256 == p.SHA256
	})
	if same >= 0 {
		// The pool may have lost what is uploaded again.
		answer.Already = true
		d.want(in.file(), in.Content, !d.brought(component, existing[same]))
		return answer, nil
	}
	if err := d.mustBeUnique(ctx, component, existing, in); err != nil {
		return Upload{}, err
	}
	if !allowOlder {
		if err := mustNotBeOlder(existing, in); err != nil {
			return Upload{}, err
		}
	}
	if in.unlisted != nil {
		return Upload{}, fail(Invalid, "", "cannot add %s: %v", in.Name, in.unlisted)
	}
	d.want(in.file(), in.Content, false)
	kept, gone := settle(d.line.Architectures, max(repository.Keep, 1), in.listed, existing)
	d.set(component, p.Name, kept)
	for _, old := range gone {
		if !slices.Contains(answer.Replaced, old.Version) {
			answer.Replaced = append(answer.Replaced, old.Version)
		}
	}
	d.uploads = append(d.uploads, Accepted{
		Pipeline: d.line.Name, Component: component, Name: p.Name, Version: p.Version, Architecture: p.Architecture,
		SHA256: p.SHA256, Size: p.Size, By: a.Name, Via: a.Via, At: d.now,
	})
	d.say(a, "%s %s (%s) into %s", p.Name, p.Version, p.Architecture, component)
	d.act(a, "upload", "repository "+component, fmt.Sprintf("%s %s (%s)", p.Name, p.Version, p.Architecture))
	return answer, nil
}

// mustBeUnique refuses a second file for a name, version and architecture
// that is, or ever was, taken in this pipeline: apt and every device that
// has the first would never see the second.
func (d *draft) mustBeUnique(ctx context.Context, component string, existing []snapshots.Package, in Incoming) error {
	p := in.Package
	other := func(sum [32]byte, where string) error {
		return fail(Conflict, "give the new build a higher version",
			"cannot add %s: %s %s (%s) is already %s with other bytes: SHA-256 %x there, %x here",
			in.Name, p.Name, p.Version, p.Architecture, where, sum, p.SHA256)
	}
	for _, q := range existing {
		if q.Version != p.Version {
			continue
		}
		if q.Architecture == p.Architecture {
			return other(q.SHA256, "in "+component)
		}
		if q.Architecture == "all" || p.Architecture == "all" {
			return fail(Conflict, "give the new build a higher version",
				"cannot add %s: %s %s is already in %s for architecture %s", in.Name, p.Name, p.Version, component, q.Architecture)
		}
	}
	for _, c := range d.line.Components {
		if c.Name == component {
			continue
		}
		elsewhere, err := d.named(ctx, c.Name, p.Name)
		if err != nil {
			return because(err, "cannot add %s", in.Name)
		}
		for _, q := range elsewhere {
			if q.Version == p.Version && q.Architecture == p.Architecture && q.SHA256 != p.SHA256 {
				return other(q.SHA256, "in "+c.Name)
			}
		}
	}
	before, ok, err := d.accepted(ctx, in.ref())
	if err != nil {
		return because(err, "cannot add %s", in.Name)
	}
	if ok && before.SHA256 != p.SHA256 {
		return other(before.SHA256, fmt.Sprintf("known (uploaded by %s on %s)", before.By, before.At.Format("2006-01-02")))
	}
	return nil
}

// mustNotBeOlder refuses a version below one that apt would offer instead.
func mustNotBeOlder(existing []snapshots.Package, in Incoming) error {
	p := in.Package
	for _, q := range existing {
		if !share(p.Architecture, q.Architecture) || deb.Compare(p.Version, q.Version) >= 0 {
			continue
		}
		return fail(Refused, "to go back on purpose: repo-manager package add --allow-older",
			"cannot add %s: %s %s is older than %s, which is there", in.Name, p.Name, p.Version, q.Version)
	}
	return nil
}

// share tells whether two architectures meet in an index.
func share(a, b string) bool { return a == b || a == "all" || b == "all" }

// settle decides which versions of a package stay when fresh arrives: in
// every index that shows it, fresh and the keep-1 highest others. What
// another index still needs stays too: all that is for its architecture, and
// what is for all until keep newer ones are there. So an old version for all
// goes when each architecture has something newer.
func settle(architectures []string, keep int, fresh snapshots.Package, existing []snapshots.Package) (kept, gone []snapshots.Package) {
	stays := make(map[snapshots.Ref]bool)
	for _, architecture := range architectures {
		var shown []snapshots.Package
		for _, p := range existing {
			if share(architecture, p.Architecture) {
				shown = append(shown, p)
			}
		}
		slices.SortStableFunc(shown, func(a, b snapshots.Package) int { return deb.Compare(b.Version, a.Version) })
		for i, p := range shown {
			if share(architecture, fresh.Architecture) && i < keep-1 ||
				!share(architecture, fresh.Architecture) && (p.Architecture != "all" || i < keep) {
				stays[p.Ref()] = true
			}
		}
	}
	kept = []snapshots.Package{fresh}
	for _, p := range existing {
		if stays[p.Ref()] {
			kept = append(kept, p)
		} else {
			gone = append(gone, p)
		}
	}
	return kept, gone
}

// equalTo finds the very same entry of an index.
func equalTo(p snapshots.Package) func(snapshots.Package) bool {
	return func(q snapshots.Package) bool { return string(p.Stanza) == string(q.Stanza) }
}
