package publish

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"aptfleet/internal/faultpoint"
	"aptfleet/repo-manager/internal/frame"
	"aptfleet/snapshots"
)

// Repairs is what Repair works with.
type Repairs struct {
	Expected func(context.Context) (Expected, error) // as for Check
	Progress func(files, bytes int64)                // as for Check; may be nil
	// Alone runs f while nobody else publishes or removes bases, and returns
	// its error; not at all if base, which may be nil, is not expected any more.
	Alone func(ctx context.Context, base *ExpectedBase, f func(context.Context) error) error
	// Restage publishes a stage as it stands with a later Date.
	Restage func(ctx context.Context, base ExpectedBase) error
	// Aside is the directory that receives bad files which are not ours to
	// remove. It is on the file system of the tree, and is made if needed.
	Aside string
}

// maxRounds bounds how often Repair looks again. A state's text may be lost,
// then a chunk of it, then that chunk's frames and the files that hold them:
// each round brings the next to light.
const maxRounds = 6

// Repair checks, mends what is derived, and checks again, until a check finds
// nothing that it could mend. It returns what the checks found: a Finding that
// the last one no longer has is Repaired. Nothing is believed that does not
// have the SHA-256 or the signature that someone recorded for it:
//
//   - the text of a chunk comes from its frames, or from an index file;
//   - a frame is cut out of an index file, or compressed again if the index
//     files then have the sums that Release files list for them;
//   - the text of a state comes from the index files of its base;
//   - index files come from frames, their names from them;
//   - the signed files of a fixed base come from the database, those of a stage
//     are signed anew with a later Date, which caches and clients notice;
//   - pool files come from nowhere: one that is damaged is moved aside, and
//     must be restored.
//
// Every file is replaced by a rename, so a repair that is cut short leaves
// each as it was or as it should be, and may be repeated.
func (p *Publisher) Repair(ctx context.Context, with Repairs) (Report, error) {
	r := &repairer{p: p, Repairs: with, notes: make(map[string]note)}
	hashes := make(map[fileID]*hashed)
	found := make(map[string]Finding)
	var total Report
	for round := 1; ; round++ {
		c, report, err := p.check(ctx, with.Expected, r.progress(total), hashes)
		if err != nil {
			return Report{}, err
		}
		maps.DeleteFunc(hashes, func(_ fileID, h *hashed) bool { return h.err != nil })
		report.Files += total.Files
		report.Bytes += total.Bytes
		total = report
		for _, f := range report.Findings {
			if _, known := found[f.Path]; !known {
				found[f.Path] = f
			}
		}
		before := r.changes
		if len(report.Findings) > 0 && round < maxRounds {
			if err := r.round(ctx, c, report.Findings); err != nil {
				return Report{}, fmt.Errorf("cannot repair published tree: %w", err)
			}
		}
		if r.changes == before {
			break
		}
	}
	total.Findings = r.outcome(found, total.Findings)
	return total, nil
}

// repairer is one run of Repair.
type repairer struct {
	p *Publisher
	Repairs
	c      *checker // of the round
	states map[snapshots.ID]snapshots.State
	// fixedFirst is what is expected: stages may be signed anew, fixed bases not.
	fixedFirst []ExpectedBase
	all        []use // of uses, made when it is first asked for
	byKey      map[IndexKey][]use
	notes      map[string]note // by the path of a finding
	changes    int             // that were made so far
}

// note is what became of a finding.
type note struct {
	did    string // what was done
	failed string // why nothing could be done
	aside  string
}

// progress adds what earlier rounds have read.
func (r *repairer) progress(before Report) func(files, bytes int64) {
	if r.Progress == nil {
		return nil
	}
	return func(files, bytes int64) { r.Progress(before.Files+files, before.Bytes+bytes) }
}

// outcome says of each finding whether it is gone, and if not, what helps.
func (r *repairer) outcome(found map[string]Finding, left []Finding) []Finding {
	remains := make(map[string]Finding)
	for _, f := range left {
		remains[f.Path] = f
	}
	var findings []Finding
	for _, path := range slices.Sorted(maps.Keys(found)) {
		f, n := found[path], r.notes[path]
		f.Aside = n.aside
		still, bad := remains[path]
		switch {
		case !bad && n.did != "":
			f.Repaired = n.did
		case !bad:
			f.Repaired = "as it should be, now that what it depends on is"
		case still.Restore != "":
			f.Restore, f.SHA256, f.NeededBy = still.Restore, still.SHA256, still.NeededBy
		case n.failed != "":
			f.Restore = n.failed
		default:
			f.Restore = "restore this file from a backup"
		}
		if !bad {
			f.Restore = ""
		}
		findings = append(findings, f)
	}
	return findings
}

// did notes that something was changed because of findings.
func (r *repairer) did(paths []string, text string) {
	r.changes++
	for _, path := range paths {
		n := r.notes[path]
		n.did, n.failed = text, ""
		r.notes[path] = n
	}
}

// failed notes why findings cannot be mended.
func (r *repairer) failed(paths []string, format string, args ...any) {
	for _, path := range paths {
		n := r.notes[path]
		n.failed = fmt.Sprintf(format, args...)
		r.notes[path] = n
	}
}

// damages sorts the findings of a round by what they concern. Their values are
// paths of findings.
type damages struct {
	states  map[snapshots.ID]string
	chunks  map[snapshots.ID]string
	frames  map[frameID]string
	stored  map[string][]string // by the directory of an index
	bases   map[string][]string // by root: names that the base should have
	surplus map[string]string   // by name below the root: of bases and of the pool, not wanted
	pool    map[string]string   // by name below the root: bad package files
	files   map[string]string   // by name below the root: of Expected.Files
	other   []string
}

type frameID struct {
	id snapshots.ID
	as frame.Encoding
}

// publicPrefix begins the paths of findings in the published tree.
func (p *Publisher) publicPrefix() string { return filepath.Base(p.tree.root) + "/" }

// abs turns the path of a finding into one of a file.
func (p *Publisher) abs(finding string) string {
	return filepath.Join(filepath.Dir(p.tree.root), finding)
}

func (r *repairer) sort(findings []Finding) damages {
	d := damages{
		states: make(map[snapshots.ID]string), chunks: make(map[snapshots.ID]string), frames: make(map[frameID]string),
		stored: make(map[string][]string), bases: make(map[string][]string), surplus: make(map[string]string), pool: make(map[string]string),
		files: make(map[string]string),
	}
	isState := make(map[snapshots.ID]bool)
	for _, base := range r.c.expect.Bases {
		isState[base.State] = true
	}
	for _, f := range findings {
		name, public := strings.CutPrefix(f.Path, r.p.publicPrefix())
		switch {
		case !public:
			id, as, ok := r.p.blobs.Parse(f.Path)
			switch {
			case !ok:
				d.other = append(d.other, f.Path)
			case as != "":
				d.frames[frameID{id, as}] = f.Path
			case isState[id]:
				d.states[id] = f.Path
			default:
				d.chunks[id] = f.Path
			}
		case strings.HasPrefix(name, indexStore+"/"):
			dir := filepath.Dir(name)
			d.stored[dir] = append(d.stored[dir], f.Path)
		case r.c.expect.Files[name] != nil:
			d.files[name] = f.Path
		case strings.HasPrefix(name, "pool/") && r.c.wants[name]:
			d.pool[name] = f.Path
		case strings.HasPrefix(name, "pool/") || r.c.isBase(rootOf(name)) && !r.c.wants[name]:
			d.surplus[name] = f.Path
		case r.c.isBase(rootOf(name)):
			d.bases[rootOf(name)] = append(d.bases[rootOf(name)], f.Path)
		default:
			d.other = append(d.other, f.Path)
		}
	}
	return d
}

// round does what can be done about the findings of a check: what others are
// made of comes first.
func (r *repairer) round(ctx context.Context, c *checker, findings []Finding) error {
	r.all = nil
	r.c, r.states, r.fixedFirst = c, make(map[snapshots.ID]snapshots.State), slices.Clone(c.expect.Bases)
	slices.SortStableFunc(r.fixedFirst, func(a, b ExpectedBase) int {
		switch {
		case (a.Signed == nil) == (b.Signed == nil):
			return 0
		case a.Signed == nil:
			return 1
		}
		return -1
	})
	for _, base := range c.expect.Bases {
		if state, err := snapshots.Load(ctx, r.p.blobs, base.State); err == nil {
			r.states[base.State] = state
		}
	}
	d := r.sort(findings)
	for _, step := range []func(context.Context, damages) error{
		r.mendStates, r.mendChunks, r.mendFrames, r.mendStored, r.mendBases, r.mendFiles, r.mendSurplus, r.mendPool,
	} {
		if err := errors.Join(ctx.Err(), step(ctx, d)); err != nil {
			return err
		}
		faultpoint.Hit("repair:step")
	}
	for _, path := range d.other {
		r.failed([]string{path}, "nothing of the archive needs it: look at it, then remove it or move it away")
	}
	return errors.Join(r.p.blobs.Sync(), r.p.tree.sync())
}

// RestoreState makes the lost text of a state again, and those of its chunks
// that are lost, from what one of bases has published of it. When it returns
// nil they are durable.
func (p *Publisher) RestoreState(ctx context.Context, bases []ExpectedBase, id snapshots.ID) error {
	r := &repairer{p: p, c: &checker{copies: make(map[sum]string)}, states: make(map[snapshots.ID]snapshots.State), notes: make(map[string]note)}
	for _, base := range bases {
		if base.State != id {
			continue
		}
		r.c.expect.Bases = append(r.c.expect.Bases, base)
		at := baseAt(base.Base, base.Dir)
		for name := range byHashNames(r.releaseOf(base)) {
			file := p.tree.path(path.Join(at.dists, name))
			if got, _, err := hashFile(file); err == nil {
				r.c.copies[got] = file
			}
		}
	}
	finding := p.blobs.Name(id, "")
	if err := r.mendStates(ctx, damages{states: map[snapshots.ID]string{id: finding}}); err != nil {
		return fmt.Errorf("cannot restore state %s: %w", id, err)
	}
	if why := r.notes[finding].failed; why != "" {
		return fmt.Errorf("cannot restore state %s: %s", id, why)
	}
	return p.blobs.Sync()
}

// mendFiles writes the other files of the tree again.
func (r *repairer) mendFiles(_ context.Context, d damages) error {
	for name, finding := range d.files {
		err := r.clear(finding)
		if err == nil {
			err = r.p.tree.write(name, r.c.expect.Files[name])
		}
		if err != nil {
			r.failed([]string{finding}, "%v", err)
			continue
		}
		r.did([]string{finding}, "written again")
	}
	return nil
}

// clear moves aside what is in the way of a file: a directory in its place, or
// a file in the place of one of its directories.
func (r *repairer) clear(finding string) error {
	abs := r.p.abs(finding)
	if info, err := os.Lstat(abs); err == nil && info.IsDir() {
		return r.aside(finding, finding)
	}
	for dir := filepath.Dir(finding); dir != "."; dir = filepath.Dir(dir) {
		if info, err := os.Lstat(r.p.abs(dir)); err == nil && !info.IsDir() {
			return r.aside(dir, finding)
		}
	}
	return nil
}

// aside moves a file away because of a finding, to where nobody is offered it
// and a person finds it.
func (r *repairer) aside(path, finding string) error {
	if r.Aside == "" {
		return fmt.Errorf("%s is in the way", path)
	}
	to := filepath.Join(r.Aside, path)
	for n := 1; ; n++ {
		if _, err := os.Lstat(to); err != nil {
			break
		}
		to = filepath.Join(r.Aside, fmt.Sprintf("%s.%d", path, n))
	}
	if err := r.p.tree.step("aside", path); err != nil {
		return err
	}
	err := os.MkdirAll(filepath.Dir(to), 0o700)
	if err == nil {
		err = os.Rename(r.p.abs(path), to)
	}
	if err != nil {
		return fmt.Errorf("cannot move %s aside: %w", path, err)
	}
	n := r.notes[finding]
	if n.aside, err = filepath.Rel(filepath.Dir(r.p.tree.root), to); err != nil {
		n.aside = to
	}
	r.notes[finding] = n
	r.changes++
	return nil
}
