package ui

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// Devices that a review names one by one.
const reviewDevices = 8

// reviewView is the page on which somebody decides about a move of a stage.
type reviewView struct {
	frame
	Pipeline string
	Stage    string
	Lead     string
	Undo     bool
	Ref      string // what the person asked to promote, as asked
	From, To offer
	Note     string // of the snapshot that To is
	Nothing  string // why there is nothing to decide, or ""
	First    bool   // the stage offers nothing yet
	Packages int    // in To
	Diff     diffView

	Products     []productChange
	MoreProducts int
	Devices      []movingDevice
	MoreDevices  int
	All          string // link to the devices
	MayNot       string
	Reason       string // typed into a review that was overtaken

	Button string
	Action string // where the form goes
	Fresh  string // this page anew
	Back   string
}

// Following is the number of devices of the stage.
func (v reviewView) Following() int { return len(v.Devices) + v.MoreDevices }

// movingDevice is a device that follows the stage.
type movingDevice struct {
	Name    string
	URL     string
	Runs    offer
	Refuses bool // the release failed on it before
	Pinned  bool // to a snapshot: it does not follow
	Held    bool // it stays as it is
}

// reviewPromotion shows what promoting ?snapshot= to a stage would do.
func (s *server) reviewPromotion(w http.ResponseWriter, r *http.Request, v visitor) error {
	b, stage, err := s.lookAt(r)
	if err != nil {
		return err
	}
	if stage.Position == 0 {
		return &release.Error{
			Code: release.Refused, Text: fmt.Sprintf("cannot promote to %s: it follows every upload", stage.Name),
			Hint: "Upload a package to move it.",
		}
	}
	ref := r.URL.Query().Get("snapshot")
	if ref == "" {
		ref = b.stages[stage.Position-1].Name
	}
	to, err := s.Release.Resolve(r.Context(), b.Name, ref)
	if err != nil {
		return err
	}
	view, err := s.review(r.Context(), v, b, stage, to, r.URL.Query().Get("reason"))
	if err != nil {
		return err
	}
	view.Title = "Promote to " + stage.Name
	view.Button = view.Title
	view.Lead = fmt.Sprintf("Look at what changes, then let %s offer it.", stage.Name)
	view.Ref = ref
	view.Action = stageURL(b.Name, stage.Name, "promote")
	view.Fresh = view.Action + "?snapshot=" + url.QueryEscape(ref)
	if view.From.sameAs(view.To) {
		view.Nothing = fmt.Sprintf("Nothing to promote: %s offers this already.", stage.Name)
	}
	s.render(w, http.StatusOK, "review", view)
	return nil
}

// reviewUndo shows what going back would do.
func (s *server) reviewUndo(w http.ResponseWriter, r *http.Request, v visitor) error {
	b, stage, err := s.lookAt(r)
	if err != nil {
		return err
	}
	to, err := s.goesBackTo(r.Context(), b, stage)
	if err != nil {
		return err
	}
	view, err := s.review(r.Context(), v, b, stage, to, r.URL.Query().Get("reason"))
	if err != nil {
		return err
	}
	view.Title = "Undo the last move of " + stage.Name
	view.Button = "Take " + stage.Name + " back"
	view.Lead = fmt.Sprintf("%s offers again what it offered before. Devices follow, also to older versions.", stage.Name)
	view.Undo = true
	view.Action = stageURL(b.Name, stage.Name, "undo")
	view.Fresh = view.Action
	s.render(w, http.StatusOK, "review", view)
	return nil
}

// goesBackTo is what an undo leads to, or why there is none.
func (s *server) goesBackTo(ctx context.Context, b board, stage release.Stage) (release.Offer, error) {
	history, err := s.Release.History(ctx, b.Name, stage.Name)
	if err != nil {
		return release.Offer{}, err
	}
	to, ok := below(stage, history)
	if !ok {
		return release.Offer{}, &release.Error{
			Code: release.Refused, Text: fmt.Sprintf("cannot undo %s: it offered nothing else before", stage.Name),
		}
	}
	return to, nil
}

func (s *server) lookAt(r *http.Request) (board, release.Stage, error) {
	b, err := s.look(r.Context(), r.PathValue("p"))
	if err != nil {
		return board{}, release.Stage{}, err
	}
	stage, err := b.stage(r.PathValue("s"))
	return b, stage, err
}

// review compares what a stage offers with what it would offer.
func (s *server) review(ctx context.Context, v visitor, b board, stage release.Stage, to release.Offer, reason string) (reviewView, error) {
	view := reviewView{
		frame: s.frame(v, b.Name, stage.Name), Pipeline: b.Name, Stage: stage.Name,
		From: offerOf(stage.Offer), To: offerOf(to), First: stage.Offer.State.IsZero(),
		Back: pipelineURL(b.Name),
	}
	view.Crumbs = append(view.Crumbs, crumb{Name: stage.Name, URL: stageURL(b.Name, stage.Name, "")})
	view.section("Stages")
	view.Events, view.Live = pipelineURL(b.Name)+"/events", "warn"
	view.Reason = reason
	if snapshot := b.snapshot(to); snapshot != nil {
		view.Note, view.Packages = snapshot.Note, snapshot.Packages
	}
	for _, other := range b.stages {
		if other.Offer.State == to.State {
			view.Packages = other.Packages
		}
	}
	if !view.First {
		_, _, differences, err := s.Release.Diff(ctx, b.Name, view.From.State, view.To.State)
		if err != nil {
			return reviewView{}, err
		}
		view.Diff = newDiff(differences, b.mirrors)
	}
	survey, err := s.Fleet.Survey(ctx, fleet.Query{DeviceFilter: protocol.DeviceFilter{Pipeline: b.Name, Stage: stage.Name}, Limit: reviewDevices})
	if err != nil {
		return reviewView{}, err
	}
	now := s.Clock()
	for _, d := range survey.Views {
		one := newDevice(now, d)
		view.Devices = append(view.Devices, movingDevice{Name: d.Name, URL: one.URL, Runs: one.Runs, Refuses: one.refuses(view.To), Pinned: one.Pinned, Held: one.Hold != nil})
	}
	view.MoreDevices, view.All = survey.Total-len(survey.Views), devicesURL(b.Name, deviceFilter{Stage: stage.Name})
	if view.Products, view.MoreProducts, err = s.productChanges(ctx, b, stage, to); err != nil {
		return reviewView{}, err
	}
	if !mayMove(v, b.Name, stage.Name) {
		view.MayNot = mayNot(v, stage.Name)
	}
	return view, nil
}

// happened is one thing that moved between review and act.
type happened struct {
	What    string
	Was, Is offer
	By      string
	When    moment
}

// movedError says that what was reviewed is not what stands.
type movedError struct {
	text     string
	happened []happened
	again    string
}

func (e *movedError) Error() string { return e.text }

// promote lets a stage offer what was reviewed.
func (s *server) promote(w http.ResponseWriter, r *http.Request, v visitor) error {
	b, stage, form, err := s.decided(r, v)
	if err != nil {
		return err
	}
	ref := r.PostForm.Get("snapshot")
	to, err := s.Release.Resolve(r.Context(), b.Name, ref)
	if err != nil {
		return err
	}
	again := stageURL(b.Name, stage.Name, "promote") + "?" + url.Values{"snapshot": {ref}, "reason": {form.reason}}.Encode()
	if err := s.unmoved(b, stage, form, ref, to, again); err != nil {
		return err
	}
	name := to.Snapshot
	if name == "" {
		name = to.State.String()
	}
	move, err := s.Release.Promote(r.Context(), v.Actor(), b.Name, name, stage.Name, form.reason, &form.expect, false)
	return s.moved(w, r, b, stage, form, move, err, again)
}

// undo takes a stage back to what was reviewed.
func (s *server) undo(w http.ResponseWriter, r *http.Request, v visitor) error {
	b, stage, form, err := s.decided(r, v)
	if err != nil {
		return err
	}
	to, err := s.goesBackTo(r.Context(), b, stage)
	if err != nil {
		return err
	}
	again := stageURL(b.Name, stage.Name, "undo") + "?" + url.Values{"reason": {form.reason}}.Encode()
	if err := s.unmoved(b, stage, form, "Undo", to, again); err != nil {
		return err
	}
	move, err := s.Release.Undo(r.Context(), v.Actor(), b.Name, stage.Name, form.reason, &form.expect)
	return s.moved(w, r, b, stage, form, move, err, again)
}

// A reason has at most so many characters; the field of the form says so too.
const maxReason = 500

// decision is a filled form of a review.
type decision struct {
	expect   snapshots.ID // what the stage offered; zero for nothing
	reviewed snapshots.ID // what it should offer
	reason   string
}

func (s *server) decided(r *http.Request, v visitor) (board, release.Stage, decision, error) {
	b, stage, err := s.lookAt(r)
	if err != nil {
		return board{}, release.Stage{}, decision{}, err
	}
	if !mayMove(v, b.Name, stage.Name) {
		return b, stage, decision{}, &release.Error{Code: release.Forbidden, Text: mayNot(v, stage.Name)}
	}
	d := decision{reason: strings.TrimSpace(r.PostForm.Get("reason"))}
	if utf8.RuneCountInString(d.reason) > maxReason {
		return b, stage, decision{}, &release.Error{
			Code: release.Invalid, Text: fmt.Sprintf("cannot keep the reason: it has more than %d characters", maxReason),
			Hint: "Go back and shorten it.",
		}
	}
	for field, id := range map[string]*snapshots.ID{"expect": &d.expect, "reviewed": &d.reviewed} {
		text := r.PostForm.Get(field)
		if text == "" && field == "expect" {
			continue // the stage offered nothing
		}
		if *id, err = snapshots.ParseID(text); err != nil {
			return b, stage, decision{}, &release.Error{
				Code: release.Invalid, Text: fmt.Sprintf("cannot read the form: field %s: %v", field, err),
				Hint: "Open the review again from the pipeline page.", Err: err,
			}
		}
	}
	return b, stage, d, nil
}

// unmoved compares what was reviewed with what stands now.
func (s *server) unmoved(b board, stage release.Stage, form decision, ref string, to release.Offer, again string) error {
	var list []happened
	if stage.Offer.State != form.expect {
		list = append(list, s.stageMoved(b, stage, form))
	}
	if to.State != form.reviewed {
		h := happened{What: ref, Was: b.named(form.reviewed), Is: offerOf(to)}
		for _, source := range b.stages {
			if source.Name == ref {
				h.By, h.When = source.By, at(s.Clock(), source.Since)
			}
		}
		list = append(list, h)
	}
	if list == nil {
		return nil
	}
	return conflict(stage, list, again)
}

func (s *server) stageMoved(b board, stage release.Stage, form decision) happened {
	return happened{
		What: stage.Name, Was: b.named(form.expect), Is: offerOf(stage.Offer),
		By: stage.By, When: at(s.Clock(), stage.Since),
	}
}

func conflict(stage release.Stage, list []happened, again string) error {
	return &movedError{
		text:     fmt.Sprintf("%s was not moved: what you reviewed is not what stands now.", stage.Name),
		happened: list, again: again,
	}
}

// named is a state with the name it goes by in this pipeline.
func (b board) named(id snapshots.ID) offer {
	o := release.Offer{State: id}
	for _, snapshot := range b.snapshots {
		if snapshot.State == id && snapshot.ID > o.Snapshot {
			o.Snapshot = snapshot.ID
		}
	}
	return offerOf(o)
}

// moved answers an act: a redirect to the pipeline with a notice, or, if the
// stage moved between our look and the engine's, what moved.
func (s *server) moved(w http.ResponseWriter, r *http.Request, b board, stage release.Stage, form decision, move release.Move, err error, again string) error {
	var known *release.Error
	if errors.As(err, &known) && known.Code == release.Conflict {
		if b, err := s.look(r.Context(), b.Name); err == nil {
			if now, err := b.stage(stage.Name); err == nil && now.Offer.State != form.expect {
				return conflict(stage, []happened{s.stageMoved(b, now, form)}, again)
			}
		}
	}
	if err != nil {
		return err
	}
	s.Log.Info("stage moved from a page", "pipeline", b.Name, "stage", stage.Name, "user", move.By, "to", move.To.State.String())
	http.Redirect(w, r, pipelineURL(b.Name)+"?moved="+strconv.FormatInt(move.Seq, 10), http.StatusSeeOther)
	return nil
}
