package ui

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/release"
)

// Packages of the pipeline's own repositories that a column names; more would
// hide the shape of the page.
const contentLines = 6

// Every first repository holds this package from the beginning; it tells
// nothing about a release.
const keyringPackage = "aptfleet-archive-keyring"

// pipelinesView lists the pipelines of a server.
type pipelinesView struct {
	frame
	Pipelines []pipelineLink
}

type pipelineLink struct{ Name, URL, Detail string }

// pipelines lists those that v may read.
func (s *server) pipelines(ctx context.Context, v visitor) ([]release.Pipeline, error) {
	all, err := s.Release.Pipelines(ctx)
	return slices.DeleteFunc(slices.Clone(all), func(p release.Pipeline) bool { return !sees(v, p.Name) }), err
}

// home is the Pipeline page where there is one pipeline, else the choice.
func (s *server) home(w http.ResponseWriter, r *http.Request, v visitor) error {
	all, err := s.pipelines(r.Context(), v)
	if err != nil {
		return err
	}
	if len(all) == 1 {
		http.Redirect(w, r, pipelineURL(all[0].Name), http.StatusSeeOther)
		return nil
	}
	return s.list(w, r, v)
}

// list shows all pipelines.
func (s *server) list(w http.ResponseWriter, r *http.Request, v visitor) error {
	all, err := s.pipelines(r.Context(), v)
	if err != nil {
		return err
	}
	view := pipelinesView{frame: s.frame(v, "", "Pipelines")}
	view.Crumbs = nil
	for _, p := range all {
		view.Pipelines = append(view.Pipelines, pipelineLink{
			Name: p.Name, URL: pipelineURL(p.Name),
			Detail: fmt.Sprintf("%s, %s: %s", p.Distribution, strings.Join(p.Architectures, " and "), strings.Join(p.Stages, " → ")),
		})
	}
	s.render(w, http.StatusOK, "pipelines", view)
	return nil
}

// pipeline shows one pipeline: stages, what the next promotions would change,
// devices, activity.
func (s *server) pipeline(w http.ResponseWriter, r *http.Request, v visitor) error {
	now := s.Clock()
	b, err := s.look(r.Context(), r.PathValue("p"))
	if err != nil {
		return err
	}
	view := pipelineView{
		frame: s.frame(v, b.Name, ""), Name: b.Name, Components: b.Components,
		Width: "stages-" + strconv.Itoa(len(b.stages)),
	}
	view.section("Stages")
	view.Events, view.Live = pipelineURL(b.Name)+"/events", "replace"
	if view.Fleet, err = s.fleet(r.Context(), now, b.Name, deviceCards); err != nil {
		return err
	}
	var histories [][]release.Move
	for i, stage := range b.stages {
		history, err := s.Release.History(r.Context(), b.Name, stage.Name)
		if err != nil {
			return err
		}
		histories = append(histories, history)
		column := column{Stage: newStage(now, stage, b.snapshot(stage.Offer), view.Fleet)}
		contents, err := s.contents(r.Context(), b, stage)
		if err != nil {
			return err
		}
		if len(contents) <= contentLines {
			column.Stage.Contents = contents
		}
		if i == 0 {
			view.Empty = empty(b, contents)
		}
		column.Stage.History = stageURL(b.Name, stage.Name, "")
		if _, ok := below(stage, history); ok && mayMove(v, b.Name, stage.Name) {
			column.Stage.Undo = stageURL(b.Name, stage.Name, "undo")
		}
		if i+1 < len(b.stages) {
			if column.Next, err = s.next(r.Context(), b, v, stage, b.stages[i+1]); err != nil {
				return err
			}
		}
		view.Columns = append(view.Columns, column)
	}
	moves := newMoves(now, histories...)
	view.Activity, view.Older = fold(moves)
	changes, err := s.Release.Changes(r.Context())
	if err != nil {
		return err
	}
	view.Changes = newChanges(now, changes, b.Name)
	if view.Moved = noticed(moves, r.URL.Query().Get("moved")); view.Moved != nil {
		for _, c := range view.Columns {
			if c.Stage.Name == view.Moved.Stage && c.Stage.Offer.sameAs(view.Moved.To) {
				view.MovedUndo = c.Stage.Undo
			}
		}
	}
	s.render(w, http.StatusOK, "pipeline", view)
	return nil
}

// board is a pipeline as it stands at the moment of a request.
type board struct {
	release.Pipeline
	stages    []release.Stage
	snapshots map[string]release.Snapshot
	mirrors   map[string]bool
}

func (s *server) look(ctx context.Context, pipeline string) (board, error) {
	p, err := s.Release.Pipeline(ctx, pipeline)
	if err != nil {
		return board{}, err
	}
	b := board{Pipeline: p, snapshots: map[string]release.Snapshot{}, mirrors: map[string]bool{}}
	if b.stages, err = s.Release.Stages(ctx, pipeline); err != nil {
		return board{}, err
	}
	all, err := s.Release.Snapshots(ctx, pipeline)
	if err != nil {
		return board{}, err
	}
	for _, snapshot := range all {
		b.snapshots[snapshot.ID] = snapshot
	}
	for _, c := range p.Components {
		b.mirrors[c.Name] = c.Kind == release.Mirror
	}
	return b, nil
}

// stage finds a stage by name.
func (b board) stage(name string) (release.Stage, error) {
	for _, stage := range b.stages {
		if stage.Name == name {
			return stage, nil
		}
	}
	return release.Stage{}, &release.Error{
		Code: release.NotFound,
		Text: fmt.Sprintf("cannot find stage %s of pipeline %s", name, b.Name),
		Hint: "Its stages are " + strings.Join(b.Stages, ", ") + ".",
	}
}

// snapshot is the snapshot an offer goes by, or nil.
func (b board) snapshot(o release.Offer) *release.Snapshot {
	if snapshot, ok := b.snapshots[o.Snapshot]; ok {
		return &snapshot
	}
	return nil
}

// fleet surveys the devices of a pipeline, with cards for so many of them.
func (s *server) fleet(ctx context.Context, now time.Time, pipeline string, cards int) (fleetView, error) {
	survey, err := s.Fleet.Survey(ctx, fleet.Query{DeviceFilter: protocol.DeviceFilter{Pipeline: pipeline}, Limit: cards})
	if err != nil {
		return fleetView{}, err
	}
	return newFleet(now, pipeline, survey), nil
}

// contents lists what a stage offers of the pipeline's own repositories: all
// of it, or more than contentLines of it.
func (s *server) contents(ctx context.Context, b board, stage release.Stage) ([]contentLine, error) {
	if stage.Offer.State.IsZero() {
		return nil, nil
	}
	limit := (contentLines + 2) * len(b.Architectures) // one too many, and the keyring
	var lines []contentLine
	for _, c := range b.Components {
		if c.Kind != release.Repository {
			continue
		}
		packages, err := s.Release.Packages(ctx, b.Name, stage.Offer.State.String(), release.Filter{Component: c.Name, Limit: limit})
		if err != nil {
			return nil, err
		}
		for _, p := range packages {
			line := contentLine{Name: p.Name, Version: p.Version}
			if slices.Contains(lines, line) || p.Name == keyringPackage { // one line for all architectures
				continue
			}
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// next says what promoting from one stage to the next would change.
func (s *server) next(ctx context.Context, b board, v visitor, from, to release.Stage) (*stepView, error) {
	view := &stepView{From: from.Name, To: to.Name}
	switch {
	case from.Offer.State.IsZero(), from.Packages == 0 && to.Offer.State.IsZero():
		view.Nothing = "Nothing to promote yet."
		return view, nil
	case from.Offer.State == to.Offer.State:
		view.Nothing = fmt.Sprintf("Nothing to promote: %s offers the same.", to.Name)
		return view, nil
	case to.Offer.State.IsZero():
		view.Summary = fmt.Sprintf("the first, with %s", count(from.Packages, "package"))
	default:
		_, _, differences, err := s.Release.Diff(ctx, b.Name, to.Offer.State.String(), from.Offer.State.String())
		if err != nil {
			return nil, err
		}
		diff := newDiff(differences, b.mirrors)
		view.Summary, view.Preview, view.More = diff.Summary(), diff.Preview, diff.More()
		if diff.Total == 0 {
			view.Summary = "no package differs"
		}
	}
	if mayMove(v, b.Name, to.Name) {
		view.Review = stageURL(b.Name, to.Name, "promote") + "?snapshot=" + url.QueryEscape(from.Name)
	} else {
		view.MayNot = mayNot(v, to.Name)
	}
	return view, nil
}

// mayMove reports whether v may promote to a stage, and undo that.
func mayMove(v visitor, pipeline, stage string) bool {
	return access.Allows(v.Roles, "releaser", pipeline+"/"+stage)
}

func mayNot(v visitor, stage string) string {
	return fmt.Sprintf("%s may look, but not move %s: that takes the role releaser.", v.User, stage)
}

// empty names the first thing that is missing in a pipeline whose first stage
// has these contents.
func empty(b board, contents []contentLine) string {
	switch {
	case len(b.Components) == 0:
		return "components"
	case len(contents) == 0:
		return "packages"
	default:
		return ""
	}
}

// noticed finds the move that an act led to.
func noticed(moves []moveView, seq string) *moveView {
	n, err := strconv.ParseInt(seq, 10, 64)
	if err != nil {
		return nil
	}
	for i := range moves {
		if moves[i].Seq == n {
			return &moves[i]
		}
	}
	return nil
}

// below finds what an undo of a stage would go back to.
func below(stage release.Stage, history []release.Move) (release.Offer, bool) {
	bySeq := map[int64]release.Move{}
	for _, m := range history {
		bySeq[m.Seq] = m
	}
	standing, ok := bySeq[stage.Standing]
	if !ok || stage.Position == 0 {
		return release.Offer{}, false
	}
	under, ok := bySeq[standing.Over]
	return under.To, ok && !under.To.State.IsZero()
}

// Moves that the history of a stage shows; the command line has them all.
const historyLines = 200

// historyView is all that moved one stage.
type historyView struct {
	frame
	Pipeline string
	Stage    string
	Offer    offer
	Devices  int
	Counts   []stateCount
	All      string // link to its devices
	Moves    []moveView
	Cut      bool
	Back     string
}

func (s *server) history(w http.ResponseWriter, r *http.Request, v visitor) error {
	b, err := s.look(r.Context(), r.PathValue("p"))
	if err != nil {
		return err
	}
	stage, err := b.stage(r.PathValue("s"))
	if err != nil {
		return err
	}
	moves, err := s.Release.History(r.Context(), b.Name, stage.Name)
	if err != nil {
		return err
	}
	view := historyView{
		frame: s.frame(v, b.Name, "Stage "+stage.Name), Pipeline: b.Name, Stage: stage.Name,
		Offer: offerOf(stage.Offer), Moves: newMoves(s.Clock(), moves), Back: pipelineURL(b.Name),
		All: devicesURL(b.Name, deviceFilter{Stage: stage.Name}),
	}
	fleet, err := s.fleet(r.Context(), s.Clock(), b.Name, 0)
	if err != nil {
		return err
	}
	view.Devices, view.Counts = fleet.following(stage.Name)
	view.section("Stages")
	view.Crumbs = append(view.Crumbs, crumb{Name: stage.Name, URL: stageURL(b.Name, stage.Name, ""), Here: true})
	view.Events, view.Live = pipelineURL(b.Name)+"/events", "replace"
	if len(view.Moves) > historyLines {
		view.Moves, view.Cut = view.Moves[:historyLines], true
	}
	s.render(w, http.StatusOK, "history", view)
	return nil
}
