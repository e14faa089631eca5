package release

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"aptfleet/repo-manager/internal/publish"
	"aptfleet/snapshots"
)

// rootKind says why something keeps states. The values are part of the API.
type rootKind string

const (
	rootStage     rootKind = "stage"     // a stage offers it
	rootHistory   rootKind = "history"   // a stage can be undone to it
	rootPin       rootKind = "pin"       // a snapshot that may not be deleted
	rootSnapshot  rootKind = "snapshot"  // a snapshot, until it is deleted
	rootDevice    rootKind = "device"    // a device has it, or wants it
	rootRetention rootKind = "retention" // the pipeline's retention
	rootRecent    rootKind = "recent"    // a stage offered it a moment ago: clients may be half-way
)

// root is something that keeps states of a pipeline.
type root struct {
	pipeline string
	kind     rootKind
	name     string // stage, snapshot or device; of a retention its limits
	note     string // what people should know about it
	states   []snapshots.ID
}

// roots lists everything that keeps states. known tells which states of a
// pipeline there still are: a retention that was made longer, or a device that
// comes back after years, may name others.
func (e *Engine) roots(ctx context.Context, now time.Time, known map[pipelineState]bool, indices map[publish.IndexKey]int64) ([]root, error) {
	deployed, err := e.deployed(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot ask for devices: %w", err)
	}
	lines := e.all()
	var all []root
	for _, name := range slices.Sorted(maps.Keys(lines)) {
		l := lines[name]
		staged, err := e.stageRoots(ctx, l)
		if err != nil {
			return nil, err
		}
		all = append(all, staged...)
		all = append(all, l.snapshotRoots()...)
		all = append(all, deviceRoots(l.Name, deployed, known)...)
		room := &allowance{chunks: e.Chunks, indices: indices, left: e.IndexBudget / int64(len(lines)), counted: make(map[publish.IndexKey]bool)}
		past, err := e.pastRoots(ctx, l, now, known, room)
		if err != nil {
			return nil, err
		}
		all = append(all, past...)
	}
	return all, nil
}

// stageRoots are what stages offer and what undos lead back to. The first
// stage cannot be undone: its past is a matter of retention.
func (e *Engine) stageRoots(ctx context.Context, l *line) ([]root, error) {
	var all []root
	for position, s := range l.standings {
		if s.Offer.State.IsZero() {
			continue
		}
		all = append(all, root{pipeline: l.Name, kind: rootStage, name: s.Name, note: l.offer(position).Snapshot, states: []snapshots.ID{s.Offer.State}})
		if position == 0 {
			continue
		}
		below, err := e.Store.Below(ctx, l.Name, s.Standing)
		if err != nil {
			return nil, fmt.Errorf("cannot read the history of stage %s: %w", s.Name, err)
		}
		history := root{pipeline: l.Name, kind: rootHistory, name: s.Name}
		for _, move := range below[min(1, len(below)):] {
			history.states = append(history.states, move.To.State)
		}
		if len(history.states) > 0 {
			all = append(all, history)
		}
	}
	return all, nil
}

// snapshotRoots are the named states: first those that are pinned.
func (l *line) snapshotRoots() []root {
	var pinned, others []root
	for _, s := range l.snapshots {
		one := root{pipeline: l.Name, kind: rootSnapshot, name: s.ID, note: s.Note, states: []snapshots.ID{s.State}}
		if s.Pin == nil {
			others = append(others, one)
			continue
		}
		one.kind, one.note = rootPin, s.Pin.By+": "+s.Pin.Reason
		pinned = append(pinned, one)
	}
	return append(pinned, others...)
}

// deviceRoots are what the devices of a pipeline have, a root for each state.
func deviceRoots(pipeline string, deployed []Deployed, known map[pipelineState]bool) []root {
	var all []root
	at := make(map[snapshots.ID]int)
	devices := make(map[snapshots.ID]map[string]bool)
	for _, d := range deployed {
		if d.Pipeline != pipeline || !known[pipelineState{pipeline, d.State}] {
			continue
		}
		if devices[d.State] == nil {
			devices[d.State] = make(map[string]bool)
			at[d.State] = len(all)
			all = append(all, root{pipeline: pipeline, kind: rootDevice, name: d.Device, note: d.Role, states: []snapshots.ID{d.State}})
		}
		devices[d.State][d.Device] = true
	}
	for state, i := range at {
		switch n := len(devices[state]) - 1; n {
		case 0:
		case 1:
			all[i].note += ", and one more device"
		default:
			all[i].note += fmt.Sprintf(", and %d more devices", n)
		}
	}
	return all
}

// allowance is how many bytes the index files of past states may have. A large
// repository that is uploaded to all day would fill any disk with them.
type allowance struct {
	chunks  snapshots.Chunks
	indices map[publish.IndexKey]int64 // bytes of all that there are
	left    int64
	counted map[publish.IndexKey]bool
}

// takes tells whether there is room for the index files of a state, and then
// counts those that no state before it has.
func (a *allowance) takes(ctx context.Context, id snapshots.ID) (bool, error) {
	state, err := snapshots.Load(ctx, a.chunks, id)
	if err != nil {
		return false, err
	}
	var need int64
	var fresh []publish.IndexKey
	for _, key := range state.Keys() {
		if index := publish.IndexKeyOf(state.Index(key)); !a.counted[index] {
			need += a.indices[index]
			fresh = append(fresh, index)
		}
	}
	if need > a.left {
		return false, nil
	}
	a.left -= need
	for _, index := range fresh {
		a.counted[index] = true
	}
	return true, nil
}

// alwaysPast is how many past states of a stage are kept however large they are.
const alwaysPast = 5

// pastRoots are what retention keeps of the first stage's past, and what any
// stage offered a moment ago: the newest of it, as far as there is room.
func (e *Engine) pastRoots(ctx context.Context, l *line, now time.Time, known map[pipelineState]bool, room *allowance) ([]root, error) {
	retention := root{pipeline: l.Name, kind: rootRetention, name: l.Retention.String()}
	recent := root{pipeline: l.Name, kind: rootRecent, name: "replaced within " + shortly(e.Keep)}
	oldest, justNow := now.AddDate(0, 0, -l.Retention.Days), now.Add(-e.Keep)
	for position, s := range l.standings {
		distinct := make(map[snapshots.ID]bool)
		var failed error
		err := e.past(ctx, l.Name, s.Name, func(state snapshots.ID, until time.Time) bool {
			isRecent := until.After(justNow) && until != farAway
			if !known[pipelineState{l.Name, state}] {
				return isRecent || until == farAway || position == 0 && (until.After(oldest) || len(distinct) < l.Retention.States)
			}
			if !distinct[state] && until != farAway {
				var ok bool
				if ok, failed = room.takes(ctx, state); failed != nil || !ok && len(distinct) >= alwaysPast {
					return false
				}
			}
			distinct[state] = true
			retained := position == 0 && (len(distinct) <= l.Retention.States || until.After(oldest))
			if retained {
				retention.states = append(retention.states, state)
			}
			if isRecent {
				recent.states = append(recent.states, state)
			}
			return retained || isRecent || until == farAway
		})
		if err := errors.Join(err, failed); err != nil {
			return nil, fmt.Errorf("cannot read the history of stage %s: %w", s.Name, err)
		}
	}
	all := []root{retention}
	if len(recent.states) > 0 {
		all = append(all, recent)
	}
	return all, nil
}

// shortly is a duration without the units that it has none of: 1h, not 1h0m0s.
func shortly(d time.Duration) string {
	text := d.String()
	if d%time.Minute == 0 {
		text = strings.TrimSuffix(text, "0s")
	}
	if d%time.Hour == 0 {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// past yields what a stage offered before, newest first, with the moment until
// which it did; what it offers now until the end of time. It ends when f
// returns false. Moves that are made meanwhile may make it repeat some.
func (e *Engine) past(ctx context.Context, pipeline, stage string, f func(state snapshots.ID, until time.Time) bool) error {
	seen := 0
	for limit := 256; ; limit *= 4 {
		moves, err := e.Store.Moves(ctx, pipeline, stage, limit)
		if err != nil {
			return err
		}
		for ; seen < len(moves); seen++ {
			until := farAway
			if seen > 0 {
				until = moves[seen-1].At
			}
			if !f(moves[seen].To.State, until) {
				return nil
			}
		}
		if len(moves) < limit {
			return nil
		}
	}
}

// farAway is after any moment a store knows.
var farAway = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
