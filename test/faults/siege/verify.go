package siege

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/test/rig"
)

// offers reads a base from the published tree, without any server.
func (w *world) offers(data, base string) (rig.InRelease, map[string]rig.Entry, error) {
	root := filepath.Join(data, "public", base)
	in, entries, err := rig.ReadBase(distribution, w.keyring, func(path string) ([]byte, error) { return os.ReadFile(filepath.Join(root, path)) })
	packages := make(map[string]rig.Entry)
	for _, e := range entries {
		packages[e.Name] = e
	}
	return in, packages, err
}

// verifyTree looks at the published tree as the death left it.
func (w *world) verifyTree() {
	for _, pipeline := range pipelines {
		for _, stage := range stages {
			at := subject{pipeline, stage}
			in, _, err := w.offers(w.place.data(), pipeline+"/"+stage)
			seen := w.ledger.seen(at)
			var damaged *fs.PathError
			switch {
			case errors.As(err, &damaged) && filepath.Base(damaged.Path) == "InRelease" && errors.Is(err, fs.ErrNotExist):
				// What a client saw may be not durable yet, but something was.
				if seen.text != "" && w.FileSystem == nil {
					w.mismatch("%s/%s has no InRelease any more", pipeline, stage)
				}
			case err != nil:
				w.mismatch("the tree without a server, %s/%s: %v", pipeline, stage, err)
			case w.FileSystem == nil:
				w.sees(at, in)
			}
		}
	}
}

// sees notes the InRelease of a stage as it lies on the disk.
func (w *world) sees(at subject, in rig.InRelease) {
	info, err := os.Stat(filepath.Join(w.place.data(), "public", at.pipeline, at.name, "dists", distribution, "InRelease"))
	if err != nil {
		w.mismatch("%v", err)
		return
	}
	w.ledger.saw(at, dated{in.Date, info.ModTime(), string(in.Text)}, w.ledger.seen(at))
}

// verify holds what the server says and publishes against what was promised.
func (w *world) verify(ctx context.Context) error {
	for _, pipeline := range pipelines {
		if err := w.verifyPipeline(ctx, pipeline); err != nil {
			return err
		}
	}
	changes, err := w.server.API.Changes(ctx)
	if err != nil {
		return err
	}
	for _, change := range changes {
		if change.Status == "doing" {
			w.mismatch("change %d (%s) is still under way", change.ID, change.Summary)
		}
	}
	w.finish(ctx)
	report, err := w.server.API.Check(ctx, nil)
	if err != nil {
		return err
	}
	for _, f := range report.Findings {
		w.mismatch("check: %s: %s", f.Path, f.Reason)
	}
	if report.Files == 0 {
		w.mismatch("check looked at no file")
	}
	left, err := rig.Leftovers(w.place.data())
	if err != nil {
		return err
	}
	for _, path := range left {
		w.mismatch("%s was left behind", path)
	}
	if w.random.IntN(4) == 0 {
		w.verifyBackups(ctx)
	}
	if w.apt != nil && w.random.IntN(8) == 0 {
		return w.verifyApt(ctx, pipelines[w.random.IntN(len(pipelines))])
	}
	return nil
}

func (w *world) verifyPipeline(ctx context.Context, pipeline string) error {
	var dev map[string]rig.Entry
	for i, stage := range stages {
		at := subject{pipeline, stage}
		now, err := w.server.API.Stage(ctx, pipeline, stage)
		if err != nil {
			return err
		}
		if now.State == "" {
			if len(w.ledger.moves[at]) > 0 {
				w.lost(len(w.ledger.moves[at]), "%s/%s offers nothing", pipeline, stage)
			}
			continue
		}
		in, there, err := w.offers(w.place.data(), pipeline+"/"+stage)
		if err != nil {
			w.mismatch("%s/%s: %v", pipeline, stage, err)
			continue
		}
		w.sees(at, in)
		if err := w.verifyOffer(ctx, pipeline, stage, there); err != nil {
			return err
		}
		if i == 0 {
			dev = there
			continue
		}
		if err := w.verifyMoves(ctx, at, now); err != nil {
			return err
		}
	}
	w.verifyUploads(pipeline, dev)
	return w.verifySnapshots(ctx, pipeline)
}

// verifyOffer compares what a base publishes with what the database says.
func (w *world) verifyOffer(ctx context.Context, pipeline, ref string, there map[string]rig.Entry) error {
	listed, err := w.server.API.Packages(ctx, pipeline, client.PackageQuery{Ref: ref})
	if err != nil {
		return err
	}
	said := make(map[string]string)
	for _, p := range listed {
		said[p.Name+" "+p.Version] = p.SHA256
	}
	offered := make(map[string]string)
	for _, e := range there {
		offered[e.Name+" "+e.Version] = e.SHA256
	}
	if !maps.Equal(said, offered) {
		w.mismatch("%s/%s publishes %d packages, the database has %d: they are not the same", pipeline, ref, len(offered), len(said))
	}
	return nil
}

// verifyUploads looks for every package that was accepted.
func (w *world) verifyUploads(pipeline string, there map[string]rig.Entry) {
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	for at, v := range w.ledger.uploads {
		if at.pipeline != pipeline {
			continue
		}
		w.result.Promises += min(v.acked, 1)
		e, ok := there[at.name]
		n := versionNumber(e.Version)
		switch {
		case !ok && v.acked > 0:
			w.lost(1, "%s/%s %s was accepted and is not offered", pipeline, at.name, versionName(v.acked))
		case !ok:
		case n < v.acked:
			w.lost(1, "%s/%s %s was accepted and %s is offered", pipeline, at.name, versionName(v.acked), e.Version)
		case n > len(v.sums) || v.sums[n-1] != e.SHA256:
			w.mismatch("%s/%s %s is offered with bytes that nobody sent", pipeline, at.name, e.Version)
		}
	}
}

// verifyMoves looks for every promotion and undo of a stage that was answered.
func (w *world) verifyMoves(ctx context.Context, at subject, now protocol.Stage) error {
	history, err := w.server.API.History(ctx, at.pipeline, at.name)
	if err != nil {
		return err
	}
	if len(history) == 0 || history[0].ToState != now.State {
		w.mismatch("%s/%s does not offer what its newest move says", at.pipeline, at.name)
	}
	known := make(map[int64]protocol.Move)
	for _, m := range history {
		known[m.Seq] = m
	}
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	for _, m := range w.ledger.moves[at] {
		w.result.Promises++
		if k := known[m.Seq]; k.Kind != m.Kind || k.ToState != m.ToState {
			w.lost(1, "%s %d of %s/%s is not in its history", m.Kind, m.Seq, at.pipeline, at.name)
		}
	}
	return nil
}

// verifySnapshots looks for every snapshot that was answered, and reads one.
func (w *world) verifySnapshots(ctx context.Context, pipeline string) error {
	listed, err := w.server.API.Snapshots(ctx, pipeline)
	if err != nil {
		return err
	}
	w.ledger.mu.Lock()
	promised := slices.Clone(w.ledger.snapshots[pipeline])
	w.ledger.mu.Unlock()
	for _, s := range promised {
		w.result.Promises++
		if !slices.ContainsFunc(listed, func(l protocol.Snapshot) bool { return l.ID == s.ID && l.State == s.State }) {
			w.lost(1, "snapshot %s of %s is gone", s.ID, pipeline)
		}
	}
	if len(listed) == 0 {
		return nil
	}
	id := listed[w.random.IntN(len(listed))].ID
	_, there, err := w.offers(w.place.data(), pipeline+"/snapshots/"+id)
	if err != nil {
		w.mismatch("%s/snapshots/%s: %v", pipeline, id, err)
		return nil
	}
	return w.verifyOffer(ctx, pipeline, id, there)
}

// verifyApt has apt read the stage dev, and compares one package.
func (w *world) verifyApt(ctx context.Context, pipeline string) error {
	out, err := w.apt.update(ctx, w.server.Public+"/"+pipeline+"/dev")
	if err != nil || strings.Contains(out, "\nW:") {
		w.mismatch("apt-get update: %v\n%s", err, out)
		return ctx.Err()
	}
	_, there, err := w.offers(w.place.data(), pipeline+"/dev")
	if err != nil {
		return nil // verifyPipeline has said so
	}
	names := slices.Sorted(maps.Keys(there))
	name := names[w.random.IntN(len(names))]
	got, err := w.apt.candidate(ctx, name)
	if err != nil {
		return err
	}
	if got != there[name].Version {
		w.mismatch("apt would install %s %s, and %s is offered", name, fmt.Sprintf("%q", got), there[name].Version)
	}
	return nil
}
