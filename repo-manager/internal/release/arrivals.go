package release

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"aptfleet/internal/deb"
	"aptfleet/repo-manager/internal/publish"
	"aptfleet/snapshots"
)

// An arrival is a small upload of a batch that was put into the pool ahead of
// the batch's edits. Making files is most of what an import costs, and can be
// done by many at once; edits are made one after the other. What the edits then
// refuse is taken back.
type arrival struct {
	listed  snapshots.Package // as its index will list it
	already bool              // the pool had the file
	stays   bool              // an edit wants the file
}

// arrive puts the small ones of several uploads, which are announced, into the
// pool. What fails here is tried again by the upload's edit, and fails for it
// alone.
func (d *draft) arrive(uploads []Incoming) {
	var small []*Incoming
	seen := make(map[[32]byte]bool)
	for i := range uploads {
		in := &uploads[i]
		if in.Path == "" && !seen[in.Package.SHA256] {
			seen[in.Package.SHA256] = true
			small = append(small, in)
		}
	}
	if len(small) < 2 {
		return
	}
	arrived := make([]*arrival, len(small))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(small)) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(small)); i = next.Add(1) - 1 {
				arrived[i] = d.e.arrive(small[i])
			}
		})
	}
	workers.Wait()
	d.arrived = make(map[[32]byte]*arrival, len(small))
	for i, in := range small {
		if arrived[i] != nil {
			d.arrived[in.Package.SHA256] = arrived[i]
		}
	}
}

// arrive returns nil if the package cannot be listed or stored.
func (e *Engine) arrive(in *Incoming) *arrival {
	listed, err := in.listed()
	if err != nil {
		return nil
	}
	already, err := e.place(*in)
	if err != nil {
		return nil
	}
	return &arrival{listed: listed, already: already}
}

// listed is the package as an index lists it.
func (in Incoming) listed() (snapshots.Package, error) {
	file := in.file()
	return snapshots.ParsePackage(deb.Index(in.Package, publish.PoolFilename(file.SHA256, file.Name)))
}

// listed is what arrived, or else Incoming.listed.
func (d *draft) listed(in Incoming) (snapshots.Package, error) {
	if a := d.arrived[in.Package.SHA256]; a != nil {
		return a.listed, nil
	}
	return in.listed()
}

// place puts the file of an upload into the pool, unless it arrived there. The
// first edit that wants the file is told whether the pool had it before.
func (d *draft) place(in Incoming) (already bool, err error) {
	a := d.arrived[in.Package.SHA256]
	if a == nil || in.Path != "" {
		return d.e.place(in)
	}
	already = a.already || a.stays
	a.stays = true
	return already, nil
}

// takeBackRefused removes from the pool what arrived and no edit wants. What
// cannot be removed is no harm: nothing refers to it.
func (d *draft) takeBackRefused(ctx context.Context, uploads []Incoming) {
	for _, in := range uploads {
		a := d.arrived[in.Package.SHA256]
		if a == nil || a.stays || a.already {
			continue
		}
		a.stays = true // seen to
		if err := d.e.takeOut(ctx, in.file()); err != nil {
			d.e.Log.Warn("cannot remove the file of a refused upload from the pool", "file", in.Name, "error", err)
		}
	}
}
