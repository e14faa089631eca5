package api

import (
	"encoding/hex"

	"aptfleet/internal/deb"
	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/publish"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// list converts a slice. It never returns nil, so that an empty list is []
// in JSON and not null.
func list[A, B any](in []A, convert func(A) B) []B {
	out := make([]B, 0, len(in))
	for _, v := range in {
		out = append(out, convert(v))
	}
	return out
}

// stateText is a state's id, or "" where there is none.
func stateText(id snapshots.ID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

func toPipeline(p release.Pipeline) protocol.Pipeline {
	return protocol.Pipeline{
		Name: p.Name, Distribution: p.Distribution, Architectures: p.Architectures,
		Stages: p.Stages, Components: list(p.Components, toComponent), Created: p.Created.UTC(),
		Retention: &protocol.Retention{States: p.Retention.States, Days: p.Retention.Days}, Private: p.Private,
	}
}

func toComponent(c release.Component) protocol.Component {
	out := protocol.Component{Name: c.Name, Kind: string(c.Kind), Keep: c.Keep}
	if c.Mirror != nil {
		out.Mirror = toMirror(*c.Mirror)
	}
	return out
}

func toUpload(u release.Upload) protocol.Upload {
	return protocol.Upload{
		Name: u.Name, Version: u.Version, Architecture: u.Architecture, SHA256: u.SHA256, Size: u.Size,
		State: stateText(u.State), Already: u.Already, Replaced: u.Replaced,
	}
}

func toPackage(l release.Listed) protocol.Package {
	return protocol.Package{
		Component: l.Component, Name: l.Name, Version: l.Version, Architecture: l.Architecture,
		SHA256: hex.EncodeToString(l.SHA256[:]), Size: l.Size,
	}
}

// toSnapshot also tells which stages offer the snapshot.
func toSnapshot(stages []release.Stage) func(release.Snapshot) protocol.Snapshot {
	return func(s release.Snapshot) protocol.Snapshot {
		out := protocol.Snapshot{
			ID: s.ID, State: stateText(s.State), Labels: s.Labels, Note: s.Note,
			By: s.By, Created: s.Created.UTC(), Packages: s.Packages, Pin: toPin(s.Pin),
		}
		for _, stage := range stages {
			if stage.Offer.Snapshot == s.ID {
				out.Stages = append(out.Stages, stage.Name)
			}
		}
		return out
	}
}

func toStage(s release.Stage) protocol.Stage {
	out := protocol.Stage{
		Name: s.Name, Position: s.Position, State: stateText(s.Offer.State), Snapshot: s.Offer.Snapshot,
		By: s.By, Reason: s.Reason, Packages: s.Packages,
	}
	if !s.Since.IsZero() {
		out.Since = s.Since.UTC()
	}
	return out
}

func toMove(m release.Move) protocol.Move {
	out := protocol.Move{
		Seq: m.Seq, Stage: m.Stage, Kind: string(m.Kind),
		FromState: stateText(m.From.State), FromSnapshot: m.From.Snapshot,
		ToState: stateText(m.To.State), ToSnapshot: m.To.Snapshot, By: m.By, Reason: m.Reason,
	}
	if !m.At.IsZero() {
		out.At = m.At.UTC()
	}
	return out
}

// toDifference names the kind of a difference.
func toDifference(d snapshots.Difference) protocol.Difference {
	out := protocol.Difference{Component: d.Key.Component, Architecture: d.Key.Architecture, Name: d.Name}
	if d.Old != nil {
		out.Old = d.Old.Version
	}
	if d.New != nil {
		out.New = d.New.Version
	}
	switch {
	case d.Old == nil:
		out.Kind = "new"
	case d.New == nil:
		out.Kind = "gone"
	default:
		switch order := deb.Compare(d.Old.Version, d.New.Version); {
		case order < 0:
			out.Kind = "upgraded"
		case order > 0:
			out.Kind = "downgraded"
		case d.Old.SHA256 == d.New.SHA256 && d.Old.Architecture == d.New.Architecture:
			out.Kind = "relisted"
		default:
			out.Kind = "rebuilt"
		}
	}
	return out
}

func toChange(c release.Change) protocol.Change {
	out := protocol.Change{
		ID: c.ID, Kind: c.Kind, Summary: c.Summary, Pipeline: c.Pipeline, Status: string(c.Status),
		By: c.By, Reason: c.Reason, Created: c.Created.UTC(), Done: c.Done, Total: c.Total, Unit: c.Unit,
		Log: c.Log, Error: c.Error, Result: c.Result,
	}
	if !c.Finished.IsZero() {
		out.Finished = c.Finished.UTC()
	}
	return out
}

func toEvent(e release.Event) protocol.Event {
	return protocol.Event{Seq: e.Seq, Kind: e.Kind, Pipeline: e.Pipeline, Subject: e.Subject, At: e.At.UTC()}
}

func toFinding(f publish.Finding) protocol.Finding {
	return protocol.Finding{
		Path: f.Path, Reason: f.Reason, Repaired: f.Repaired, Aside: f.Aside, Restore: f.Restore, SHA256: f.SHA256, NeededBy: f.NeededBy,
	}
}
