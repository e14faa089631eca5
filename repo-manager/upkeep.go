package main

import (
	"cmp"
	"context"
	"strings"
	"time"

	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// deployed is what the devices have, as the engine wants to know it before it
// lets anything go.
func (s *server) deployed(ctx context.Context) ([]release.Deployed, error) {
	if s.fleet == nil { // still opening
		return nil, nil
	}
	devices, err := s.fleet.Devices(ctx)
	if err != nil {
		return nil, err
	}
	var all []release.Deployed
	for _, d := range devices {
		if d.Retired == nil {
			all = append(all, deployedOn(d)...)
		}
	}
	return all, nil
}

// deployedOn lists the deployments of a device, what it is about to install,
// and what it was told to.
func deployedOn(d fleet.Device) []release.Deployed {
	var all []release.Deployed
	add := func(role, state, snapshot string) {
		id, err := snapshots.ParseID(state)
		if err != nil {
			id = snapshots.ID{} // a device says what it likes
		}
		if !id.IsZero() || snapshot != "" {
			all = append(all, release.Deployed{Device: d.Name, Pipeline: d.Pipeline, Role: role, State: id, Snapshot: snapshot})
		}
	}
	if d.Release != nil {
		add("assigned", d.Release.State, d.Release.Snapshot)
	}
	if d.Pin != nil {
		add("pinned", "", d.Pin.Snapshot)
	}
	if d.Report == nil {
		return all
	}
	report := *d.Report
	for _, deployment := range report.Deployments {
		add(deployment.Role, deployment.State, deployment.Snapshot)
	}
	add("wanted", report.Wanted, "")
	if id, ok := strings.CutPrefix(report.Follow, "snapshot:"); ok {
		add("followed", "", id)
	}
	if id, ok := strings.CutPrefix(report.Follow, "state:"); ok {
		add("followed", id, "")
	}
	return all
}

const (
	defaultGCEvery = 24 * time.Hour
	// settle is how long after its start the server begins a gc that is due, or
	// that something cut short.
	settle = time.Minute
	// again is how long after a gc could not start the next one is tried.
	again = 10 * time.Minute
	// lookAtBudget is how often the server looks whether index files have
	// outgrown their budget.
	lookAtBudget = 15 * time.Second
)

// collectGarbage starts a gc now and then until ctx ends.
func (s *server) collectGarbage(ctx context.Context) {
	every := cmp.Or(s.settings.GCEvery, defaultGCEvery)
	if every < 0 {
		return
	}
	for pause := s.untilGC(ctx, every); ; {
		if !s.gcIsDue(ctx, pause) {
			return
		}
		pause = every
		if _, err := s.engine.CollectGarbage(ctx, system, "", false); err != nil {
			pause = min(every, again)
			s.log.Warn("cannot start a gc; will try again", "error", err, "after", pause)
		}
	}
}

// gcIsDue waits for a pause to pass, or for index files to outgrow their budget,
// and returns false if ctx ended before.
func (s *server) gcIsDue(ctx context.Context, pause time.Duration) bool {
	due, look := time.NewTimer(pause), time.NewTicker(lookAtBudget)
	defer due.Stop()
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-due.C:
			return true
		case <-look.C:
			if s.engine.OverBudget() {
				return true
			}
		}
	}
}

// untilGC is how long it is until a server that just started begins a gc.
func (s *server) untilGC(ctx context.Context, every time.Duration) time.Duration {
	changes, err := s.engine.Changes(ctx)
	if err == nil {
		var pipelines []release.Pipeline
		if pipelines, err = s.engine.Pipelines(ctx); err == nil {
			return firstGC(changes, pipelines, every, s.clock())
		}
	}
	s.log.Error("cannot tell when the last gc was", "error", err)
	return every
}

// firstGC is how long after now a gc is due: the time since the last one
// counts, or since there is something, also if the server did not run. One
// that did not come to its end left something over.
func firstGC(changes []release.Change, pipelines []release.Pipeline, every time.Duration, now time.Time) time.Duration {
	since := now
	for _, p := range pipelines {
		if p.Created.Before(since) {
			since = p.Created
		}
	}
	for _, c := range changes { // newest first
		if !c.IsGC() {
			continue
		}
		if c.Status != release.Done {
			return settle
		}
		since = c.Created
		break
	}
	return min(every, max(settle, since.Add(every).Sub(now)))
}

// flushUseEvery is how often the server stores when tokens and sessions were
// used last, and so how much of that a crash forgets.
const flushUseEvery = 5 * time.Minute

// flushUse stores that now and then until ctx ends; the rest is stored when the
// server closes.
func (s *server) flushUse(ctx context.Context) {
	every := time.NewTicker(flushUseEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			s.storeUse(ctx)
		}
	}
}

// storeUse stores when tokens and sessions were used. It is worth a warning, and
// no failure of anything.
func (s *server) storeUse(ctx context.Context) {
	if err := s.access.FlushUse(ctx); err != nil && ctx.Err() == nil {
		s.log.Warn("cannot store when tokens and sessions were used", "error", err)
	}
}
