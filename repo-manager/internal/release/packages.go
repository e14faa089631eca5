package release

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"slices"

	"aptfleet/internal/deb"
	"aptfleet/repo-manager/internal/publish"
	"aptfleet/snapshots"
)

// Incoming is an upload that was received and checked and waits to be added.
type Incoming struct {
	Path    string // of the file, on the pool's file system; "" if Content has all of it
	Content []byte // of a small file, which is written when it is added
	Name    string // what the uploader calls the file; it appears in errors
	Package deb.Package
	Done    func() // is called when the upload is not needed any more; may be nil

	listed   snapshots.Package // as an index lists it
	unlisted error             // why it cannot be listed
}

// file is what becomes part of the pool.
func (in Incoming) file() File {
	p := in.Package
	return File{Path: in.Path, SHA256: p.SHA256, Name: deb.FileName(p.Name, p.Version, p.Architecture), Size: p.Size}
}

// ref is the name of the package within its component.
func (in Incoming) ref() snapshots.Ref {
	return snapshots.Ref{Name: in.Package.Name, Version: in.Package.Version, Architecture: in.Package.Architecture}
}

// Discard gives back what the upload takes; it is called once. The file is
// removed if it is still there: an accepted one has left its place.
func (in Incoming) Discard() error {
	if in.Done != nil {
		in.Done()
	}
	if in.Path == "" {
		return nil
	}
	if err := os.Remove(in.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Listed is a package with the component it is in.
type Listed struct {
	Component string
	snapshots.Package
}

// Add adds a package to a rolling repository. After it returned nil the
// package is durable and published in the first stage. A lower version than
// the one that is there is Refused unless allowOlder; other bytes under a
// known name, version and architecture are a Conflict; the same bytes are
// answered with Already. Uploads that wait together share one state.
func (e *Engine) Add(ctx context.Context, a Actor, pipeline, repository string, in Incoming, allowOlder bool) (Upload, error) {
	added := e.AddAll(ctx, a, pipeline, repository, []Incoming{in}, allowOlder)
	return added[0].Upload, added[0].Err
}

// Added is what became of one of many packages.
type Added struct {
	Upload
	Err error // nil, or why it was not added
}

// AddAll is Add for many packages that arrived together: they share one state,
// and each is taken or refused by itself. It answers for each, in their order.
func (e *Engine) AddAll(ctx context.Context, a Actor, pipeline, repository string, uploads []Incoming, allowOlder bool) []Added {
	added := make([]Added, len(uploads))
	jobs := make([]*job, len(uploads))
	for i, in := range uploads {
		file := in.file()
		in.listed, in.unlisted = snapshots.ParsePackage(deb.Index(in.Package, publish.PoolFilename(file.SHA256, file.Name)))
		jobs[i] = &job{ctx: ctx, pipeline: pipeline, upload: &uploads[i], edit: func(ctx context.Context, d *draft) (func(), error) {
			upload, err := d.add(ctx, a, repository, in, allowOlder)
			return func() {
				upload.State = d.head.ID()
				added[i].Upload = upload
			}, err
		}}
	}
	for i, err := range e.doAll(jobs) {
		added[i].Err = err
	}
	return added
}

// Remove takes a package out of a rolling repository: one version in all its
// architectures, or all versions if version is "". States and snapshots that
// hold it keep it.
func (e *Engine) Remove(ctx context.Context, a Actor, pipeline, repository, name, version string) ([]Listed, error) {
	var removed []Listed
	err := e.do(&job{ctx: ctx, pipeline: pipeline, edit: func(ctx context.Context, d *draft) (func(), error) {
		gone, err := d.remove(ctx, a, repository, name, version)
		return func() { removed = gone }, err
	}})
	return removed, err
}

func (d *draft) remove(ctx context.Context, a Actor, component, name, version string) ([]Listed, error) {
	if _, err := d.line.component(component, Repository); err != nil {
		return nil, err
	}
	existing, err := d.named(ctx, component, name)
	if err != nil {
		return nil, because(err, "cannot remove %s", name)
	}
	var kept []snapshots.Package
	var gone []Listed
	for _, p := range existing {
		if version != "" && p.Version != version {
			kept = append(kept, p)
			continue
		}
		gone = append(gone, Listed{component, p})
		d.say(a, "%s %s (%s) removed from %s", p.Name, p.Version, p.Architecture, component)
		d.act(a, "remove", "repository "+component, fmt.Sprintf("%s %s (%s)", p.Name, p.Version, p.Architecture))
	}
	if len(gone) == 0 {
		wanted := name
		if version != "" {
			wanted += " " + version
		}
		return nil, fail(NotFound, "repo-manager package list", "cannot remove %s: repository %s has no such package", wanted, component)
	}
	d.set(component, name, kept)
	return gone, nil
}

// ReplaceMirror makes pkgs all that a mirror holds and publishes that as a new
// state. files are those of them that the pool may not have yet; they are
// renamed into it. Other bytes under a name, version and architecture that
// another component has are a Conflict, as they are for an upload. If a file
// that is not given is missing the error is ErrVanished, and the files stay where
// they are; if the state cannot be committed they are gone. It returns the state of the pipeline after it.
func (e *Engine) ReplaceMirror(ctx context.Context, a Actor, pipeline, component string, pkgs []snapshots.Package, files []File) (snapshots.ID, error) {
	var state snapshots.ID
	err := e.do(&job{ctx: ctx, pipeline: pipeline, edit: func(ctx context.Context, d *draft) (func(), error) {
		err := d.replace(ctx, a, component, pkgs, files)
		return func() { state = d.head.ID() }, err
	}})
	return state, err
}

func (d *draft) replace(ctx context.Context, a Actor, component string, pkgs []snapshots.Package, files []File) error {
	if _, err := d.line.component(component, Mirror); err != nil {
		return err
	}
	after := make(map[string][]snapshots.Package)
	for _, p := range pkgs {
		if p.Architecture != "all" && !slices.Contains(d.line.Architectures, p.Architecture) {
			return fail(Refused, "", "cannot replace mirror %s: %s is for none of the architectures of pipeline %s", component, p.Ref(), d.line.Name)
		}
		after[p.Name] = append(after[p.Name], p)
	}
	names, err := d.readAll(ctx, component)
	if err != nil {
		return because(err, "cannot replace mirror %s", component)
	}
	if err := d.mustNotClash(ctx, component, after); err != nil {
		return err
	}
	if err := d.mustBeThere(ctx, component, pkgs, files); err != nil {
		return err
	}
	for _, f := range files {
		d.want(f, nil, false)
	}
	for _, name := range names {
		d.set(component, name, after[name])
		delete(after, name)
	}
	for name, packages := range after {
		d.set(component, name, packages)
	}
	d.say(a, "mirror %s: %d packages", component, len(pkgs))
	d.act(a, "replace", "mirror "+component, fmt.Sprintf("%d packages", len(pkgs)))
	return nil
}

// ErrVanished says that the pool had a file when somebody looked, and a gc
// removed it since. Looking again helps.
var ErrVanished = errors.New("a file is not in the pool any more")

// mustBeThere refuses packages whose files are neither in the component, nor
// given, nor on record.
func (d *draft) mustBeThere(ctx context.Context, component string, pkgs []snapshots.Package, files []File) error {
	there := make(map[[32]byte]bool, len(pkgs))
	for _, f := range files {
		there[f.SHA256] = true
	}
	for at, packages := range d.names {
		for _, p := range packages {
			there[p.SHA256] = there[p.SHA256] || at.component == component
		}
	}
	for _, p := range pkgs {
		if there[p.SHA256] {
			continue
		}
		recorded, err := d.e.Store.HasFile(ctx, p.SHA256)
		if err != nil {
			return because(err, "cannot replace mirror %s", component)
		}
		if !recorded {
			return &Error{
				Code: Conflict, Text: fmt.Sprintf("cannot replace mirror %s: the file of %s is not in the pool", component, p.Ref()),
				Hint: "repo-manager mirror update " + component, Err: ErrVanished,
			}
		}
	}
	return nil
}

// readAll reads a whole component at once, where named would open the same
// chunks for each of its names, and returns the names that it has by now.
func (d *draft) readAll(ctx context.Context, component string) ([]string, error) {
	all := make(map[string][]snapshots.Package)
	seen := make(map[snapshots.Ref]bool)
	for _, key := range d.line.keys(Component{Name: component}) {
		for p, err := range snapshots.All(ctx, d.e.Chunks, d.line.head(), key) {
			if err != nil {
				return nil, err
			}
			if !seen[p.Ref()] {
				seen[p.Ref()] = true
				all[p.Name] = append(all[p.Name], p)
			}
		}
	}
	for name, packages := range all {
		at := packageName{component, name}
		if _, edited := d.names[at]; !edited {
			d.names[at] = packages
		}
	}
	var names []string
	for at := range d.names {
		if at.component == component {
			names = append(names, at.name)
		}
	}
	return names, nil
}

// Filter narrows a list of packages down. Its zero value takes all.
type Filter struct {
	Component string // "" takes all
	Name      string // "" takes all
	Query     string // in the language of snapshots.Query; "" takes all
	Limit     int    // at most so many; 0 means all
}

// Packages lists the packages of what ref names (see Resolve), by component,
// name and version. A package of architecture all is listed once. A query that
// cannot be read is Invalid.
func (e *Engine) Packages(ctx context.Context, pipeline, ref string, filter Filter) ([]Listed, error) {
	l, err := e.line(pipeline)
	if err != nil {
		return nil, err
	}
	query, err := readQuery("list packages", filter.Query)
	if err != nil {
		return nil, err
	}
	_, state, err := e.resolve(ctx, l, ref)
	if err != nil {
		return nil, err
	}
	var listed []Listed
	seen := make(map[snapshots.Ref]bool)
	last := ""
	for _, key := range state.Keys() {
		if filter.Component != "" && key.Component != filter.Component {
			continue
		}
		if key.Component != last {
			clear(seen)
			last = key.Component
		}
		for p, err := range e.entries(ctx, state, key, filter.Name, query) {
			if err != nil {
				return nil, because(err, "cannot list packages of %s", ref)
			}
			if seen[p.Ref()] {
				continue
			}
			seen[p.Ref()] = true
			listed = append(listed, Listed{key.Component, p})
			if len(listed) == filter.Limit {
				return listed, nil
			}
		}
	}
	return listed, nil
}

// readQuery reads a query; "" takes all.
func readQuery(verb, text string) (snapshots.Query, error) {
	if text == "" {
		return snapshots.Query{}, nil
	}
	query, err := snapshots.ParseQuery(text)
	if err != nil {
		return query, fail(Invalid, "for example: 'nginx (>= 1.2) | Name (% lib*), !Section (debug)'", "cannot %s: %v", verb, err)
	}
	return query, nil
}

// entries yields what a query takes of an index, or of one name in it.
func (e *Engine) entries(ctx context.Context, state snapshots.State, key snapshots.Key, name string, query snapshots.Query) iter.Seq2[snapshots.Package, error] {
	if name == "" {
		return snapshots.Select(ctx, e.Chunks, state, key, query)
	}
	return func(yield func(snapshots.Package, error) bool) {
		found, err := snapshots.Find(ctx, e.Chunks, state, key, name)
		if err != nil {
			yield(snapshots.Package{}, err)
			return
		}
		for _, p := range found {
			if query.Takes(p) && !yield(p, nil) {
				return
			}
		}
	}
}
