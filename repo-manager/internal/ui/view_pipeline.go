package ui

import (
	"fmt"
	"sort"
	"strconv"
	"time"

	"aptfleet/repo-manager/internal/release"
)

// Lines of recent activity that are shown; as many more unfold.
const activityLines = 8

// stageView is one column of the Pipeline page.
type stageView struct {
	Name     string
	Anchor   string
	First    bool // follows every upload; nothing is promoted to it
	Offer    offer
	Note     string   // of the snapshot
	Labels   []string // of the snapshot
	Contents []contentLine
	Since    moment
	By       string
	Reason   string
	Packages int
	Devices  int          // that follow it
	Counts   []stateCount // of them
	History  string       // link
	Undo     string       // link, "" if there is nothing to undo or the person may not
}

// contentLine is a package of one of the pipeline's own repositories.
type contentLine struct{ Name, Version string }

// stepView is what lies between two columns: the next promotion.
type stepView struct {
	From, To string
	Nothing  string // why there is nothing to promote, or ""
	Summary  string // "3 upgraded, 1 new"
	Preview  []diffLine
	More     int
	Review   string // link
	MayNot   string // why this person may not promote, or ""
}

// column is a stage with the step that leads to the next one.
type column struct {
	Stage stageView
	Next  *stepView
}

// moveView is one line of activity.
type moveView struct {
	Seq    int64
	Kind   string // "publish", "promote", "undo": also the CSS class
	Stage  string
	From   offer
	To     offer
	By     string
	Reason string
	When   moment
}

// changeView is a long act under way, or one that failed lately.
type changeView struct {
	Summary  string
	By       string
	Since    moment
	Progress string // "420 of 812 packages"
	Done     int64
	Total    int64 // 0: unknown
	Detail   string
	Error    string
}

// pipelineView is the Pipeline page.
type pipelineView struct {
	frame
	Name       string
	Components []release.Component
	Columns    []column
	Width      string // "stages-3": how many columns the board has
	Fleet      fleetView
	Activity   []moveView
	Older      []moveView
	Changes    []changeView
	Moved      *moveView // notice after an act
	MovedUndo  string    // link of the notice
	Empty      string    // "components", "packages": what the visitor should do first; "" when under way
}

// newMove words a move.
func newMove(now time.Time, m release.Move) moveView {
	return moveView{
		Seq: m.Seq, Kind: string(m.Kind), Stage: m.Stage,
		From: offerOf(m.From), To: offerOf(m.To),
		By: m.By, Reason: m.Reason, When: at(now, m.At),
	}
}

// newMoves merges the histories of stages, newest first.
func newMoves(now time.Time, histories ...[]release.Move) []moveView {
	var all []release.Move
	for _, h := range histories {
		all = append(all, h...)
	}
	sort.SliceStable(all, func(i, j int) bool {
		if !all[i].At.Equal(all[j].At) {
			return all[i].At.After(all[j].At)
		}
		return all[i].Seq > all[j].Seq
	})
	views := make([]moveView, len(all))
	for i, m := range all {
		views[i] = newMove(now, m)
	}
	return views
}

// fold cuts activity into the shown and the folded lines.
func fold(moves []moveView) (shown, older []moveView) {
	if len(moves) <= activityLines {
		return moves, nil
	}
	older = moves[activityLines:]
	if len(older) > 4*activityLines {
		older = older[:4*activityLines]
	}
	return moves[:activityLines], older
}

// newChanges picks what is under way, and what failed within the last hour.
func newChanges(now time.Time, changes []release.Change, pipeline string) []changeView {
	var views []changeView
	for _, c := range changes {
		recent := c.Status == release.Failed && now.Sub(c.Finished) < time.Hour
		if c.Pipeline != pipeline || c.Status != release.Doing && !recent {
			continue
		}
		v := changeView{
			Summary: c.Summary, By: c.By, Since: at(now, c.Created),
			Done: c.Done, Total: c.Total, Error: c.Error,
		}
		if c.Status == release.Failed && v.Error == "" {
			v.Error = "it gave no reason"
		}
		switch {
		case c.Total > 0 && c.Unit == "bytes":
			v.Progress = fmt.Sprintf("%s of %s", size(c.Done), size(c.Total))
		case c.Total > 0:
			v.Progress = fmt.Sprintf("%d of %d %s", c.Done, c.Total, c.Unit)
		case c.Done > 0 && c.Unit == "bytes":
			v.Progress = size(c.Done)
		case c.Done > 0:
			v.Progress = strconv.FormatInt(c.Done, 10) + " " + c.Unit
		}
		if n := len(c.Log); n > 0 {
			v.Detail = c.Log[n-1]
		}
		views = append(views, v)
	}
	return views
}

// size words a number of bytes in decimal units, as apt does.
func size(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1000*1000:
		return fmt.Sprintf("%.1f kB", float64(n)/1000)
	case n < 1000*1000*1000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	default:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	}
}

// newStage words a stage. snapshot is that of its offer, if it has one.
func newStage(now time.Time, s release.Stage, snapshot *release.Snapshot, fleet fleetView) stageView {
	v := stageView{
		Name: s.Name, Anchor: anchor("stage", s.Name), First: s.Position == 0,
		Offer: offerOf(s.Offer), Since: at(now, s.Since), By: s.By, Reason: s.Reason,
		Packages: s.Packages,
	}
	v.Devices, v.Counts = fleet.following(s.Name)
	if snapshot != nil {
		v.Note, v.Labels = snapshot.Note, snapshot.Labels
	}
	return v
}
