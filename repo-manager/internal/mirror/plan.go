package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// plan is what an update would do, as far as the indices tell.
type plan struct {
	releases  []inRelease
	needed    []index
	basis     snapshots.ID
	unchanged bool            // nothing that decides has changed since the last update; what follows head is not known
	head      snapshots.State // what the mirror's content is compared with
	selected  []selected
	missing   []selected      // that the pool lacks
	gone      []snapshots.Ref // of the mirror, and not selected
	fresh     []int           // of selected, what the mirror has not, or not like that
	rebuilt   []rebuilt
}

// rebuilt is a package of which upstream has other bytes than the mirror.
type rebuilt struct{ old, new snapshots.Package }

// changesNothing tells whether an update has nothing to do: the mirror is as it
// should be, and so is the pool.
func (p *plan) changesNothing() bool {
	return p.unchanged || len(p.gone)+len(p.fresh)+len(p.missing) == 0
}

// indices lists the index files once each.
func (p *plan) indices() []listed {
	seen := map[listed]bool{}
	var files []listed
	for _, ix := range p.needed {
		if !seen[ix.packed] {
			seen[ix.packed] = true
			files = append(files, ix.packed)
		}
	}
	return files
}

func (p *plan) refuseRebuilt(component string) error {
	first := p.rebuilt[0]
	text := fmt.Sprintf("cannot update mirror %s: upstream has other bytes of %s than before (sha256 %x, was %x)",
		component, first.new.Ref(), first.new.SHA256, first.old.SHA256)
	if more := len(p.rebuilt) - 1; more > 0 {
		text += fmt.Sprintf(", and of %d more", more)
	}
	return &release.Error{
		Code: release.Refused,
		Text: text + "; devices that have the first would take the second for the same package; to take it all the same: repo-manager mirror update --allow-rebuilt",
	}
}

func (u *Updater) memory(pipeline, component string) memory {
	return memory{filepath.Join(u.config.Dir, pipeline, component)}
}

// look waits until nobody else looks at the upstream of a mirror: an update and
// a diff share its store of indices.
func (u *Updater) look(ctx context.Context, m memory) (done func(), err error) {
	u.mu.Lock()
	turn := u.looks[m.dir]
	if turn == nil {
		turn = make(chan struct{}, 1)
		u.looks[m.dir] = turn
	}
	u.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// plan looks at upstream: it verifies the InRelease of every suite, downloads
// the indices that it does not have, and finds what the mirror is to hold. It
// changes nothing but the store of indices. With shortcut it stops where the
// upstream and the wishes are those of the last update.
func (u *Updater) plan(ctx context.Context, p release.Pipeline, component string, config release.MirrorConfig, shortcut bool, progress Progress) (*plan, error) {
	w, err := wishesOf(config)
	if err != nil {
		return nil, err
	}
	m := u.memory(p.Name, component)
	done, err := u.look(ctx, m)
	if err != nil {
		return nil, err
	}
	defer done()
	plan := &plan{}
	if plan.releases, err = u.verify(ctx, m, config.Suites, progress); err != nil {
		return nil, err
	}
	for i := range plan.releases {
		for _, architecture := range p.Architectures {
			found, err := plan.releases[i].indices(architecture)
			if err != nil {
				return nil, err
			}
			plan.needed = append(plan.needed, found...)
		}
	}
	if plan.basis, err = basisOf(config, p.Architectures, plan.needed); err != nil {
		return nil, err
	}
	if plan.head, err = u.config.Engine.Head(ctx, p.Name); err != nil {
		return nil, err
	}
	now := outcome{plan.basis, contentOf(plan.head, component, p.Architectures)}
	if shortcut && m.outcome() == now {
		if plan.unchanged, err = u.isComplete(ctx, plan.head, component, p.Architectures); plan.unchanged || err != nil {
			return plan, err
		}
	}
	if err := u.fetchIndices(ctx, m.indices(), plan.needed, progress); err != nil {
		return nil, err
	}
	if plan.selected, err = choose(ctx, m.indices(), plan.needed, p.Architectures, w, progress); err != nil {
		return nil, err
	}
	if plan.missing, err = u.missing(plan.selected); err != nil {
		return nil, err
	}
	return plan, u.compare(ctx, plan, component, p.Architectures)
}

// verify fetches the InRelease of every suite and accepts none of them that is
// older than the one before.
func (u *Updater) verify(ctx context.Context, m memory, suites []release.MirrorSuite, progress Progress) ([]inRelease, error) {
	if err := m.adopt(suites[0]); err != nil {
		return nil, err
	}
	releases := make([]inRelease, len(suites))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelDownloads)
	for i, suite := range suites {
		group.Go(func() error {
			up, err := u.upstream(suite, i)
			if err != nil {
				return err
			}
			if releases[i], err = up.release(ctx, u.config.Clock()); err != nil {
				return err
			}
			return m.refuseOlder(releases[i])
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for _, r := range releases {
		progress.Logf("%s of %s is signed by %s", r.what(), r.date.Format(time.RFC3339), r.signer)
	}
	return releases, nil
}

// isComplete tells whether the pool has every file of what the mirror holds. One
// that was lost is a reason to look at upstream.
func (u *Updater) isComplete(ctx context.Context, head snapshots.State, component string, architectures []string) (bool, error) {
	for _, architecture := range architectures {
		for p, err := range snapshots.All(ctx, u.config.Chunks, head, snapshots.Key{Component: component, Architecture: architecture}) {
			if err != nil {
				return false, fmt.Errorf("cannot read what mirror %s holds: %w", component, err)
			}
			if !u.config.Pool.Has(p.SHA256, path.Base(p.Filename)) {
				return false, nil
			}
		}
	}
	return true, nil
}

// compare finds what separates the selection from what the mirror holds.
func (u *Updater) compare(ctx context.Context, plan *plan, component string, architectures []string) error {
	wanted := make(map[snapshots.Ref]int, len(plan.selected))
	for i, s := range plan.selected {
		wanted[s.Ref()] = i
	}
	seen := map[snapshots.Ref]bool{}
	same := make([]bool, len(plan.selected))
	for _, architecture := range architectures {
		key := snapshots.Key{Component: component, Architecture: architecture}
		for p, err := range snapshots.All(ctx, u.config.Chunks, plan.head, key) {
			if err != nil {
				return fmt.Errorf("cannot read what mirror %s holds: %w", component, err)
			}
			if seen[p.Ref()] {
				continue
			}
			seen[p.Ref()] = true
			i, stays := wanted[p.Ref()]
			if !stays {
				plan.gone = append(plan.gone, p.Ref())
				continue
			}
			same[i] = bytes.Equal(plan.selected[i].Stanza, p.Stanza)
			if plan.selected[i].SHA256 != p.SHA256 {
				plan.rebuilt = append(plan.rebuilt, rebuilt{old: p, new: plan.selected[i].Package})
			}
		}
	}
	for i, is := range same {
		if !is {
			plan.fresh = append(plan.fresh, i)
		}
	}
	return nil
}

// edit is what an update does to the state.
func (p *plan) edit(component string) snapshots.Edit {
	edit := snapshots.Edit{Component: component, Remove: p.gone}
	for _, i := range p.fresh {
		edit.Put = append(edit.Put, p.selected[i].Package)
	}
	return edit
}

// Preview is what an update of a mirror would do.
type Preview struct {
	Releases    []Release
	Packages    int   // in the mirror after it; a package of architecture all counts once
	Download    int64 // bytes of packages that the pool lacks
	Differences []snapshots.Difference
}

// Release is an InRelease of upstream whose signature is good.
type Release struct {
	URL    string
	Date   time.Time
	Signer string // fingerprint
}

// Diff tells what an update of a mirror would change now. It downloads indices
// and changes nothing. What upstream gives that no update would take is an
// error with the code Upstream.
func (u *Updater) Diff(ctx context.Context, pipeline, component string, progress Progress) (Preview, error) {
	p, err := u.config.Engine.Pipeline(ctx, pipeline)
	if err != nil {
		return Preview{}, err
	}
	config, err := mirrorOf(p, component)
	if err != nil {
		return Preview{}, err
	}
	plan, err := u.plan(ctx, p, component, *config, false, progress)
	if err != nil {
		return Preview{}, upstreamError(component, err)
	}
	preview := Preview{Packages: len(plan.selected)}
	for _, r := range plan.releases {
		preview.Releases = append(preview.Releases, Release{URL: r.url, Date: r.date, Signer: r.signer})
	}
	for _, s := range plan.missing {
		preview.Download += s.Size
	}
	scratch := &snapshots.Staged{Below: u.config.Chunks}
	after, err := snapshots.Apply(ctx, scratch, plan.head, plan.edit(component))
	if err == nil {
		preview.Differences, err = snapshots.Diff(ctx, scratch, plan.head, after)
	}
	if err != nil {
		return Preview{}, fmt.Errorf("cannot compare mirror %s with its upstream: %w", component, err)
	}
	return preview, nil
}

// upstreamError makes what an update's log would say an error for people.
func upstreamError(component string, err error) error {
	var shown *release.Error
	if errors.As(err, &shown) || errors.Is(err, context.Canceled) {
		return err
	}
	return &release.Error{Code: release.Upstream, Text: fmt.Sprintf("cannot compare mirror %s with its upstream: %v", component, err), Err: err}
}
