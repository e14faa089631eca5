package main

import (
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

func TestFirstGC(t *testing.T) {
	now := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	gc := func(ago time.Duration, status release.ChangeStatus, summary string) release.Change {
		return release.Change{Kind: "gc", Summary: summary, Status: status, Created: now.Add(-ago)}
	}
	other := release.Change{Kind: "mirror-update", Status: release.Done, Created: now}
	pipelines := []release.Pipeline{{Created: now.Add(-time.Hour)}, {Created: now.Add(-20 * time.Hour)}}
	for name, c := range map[string]struct {
		changes   []release.Change
		pipelines []release.Pipeline
		want      time.Duration
	}{
		"nothing yet":                {nil, nil, 24 * time.Hour},
		"never one":                  {[]release.Change{other}, pipelines, 4 * time.Hour},
		"one an hour ago":            {[]release.Change{other, gc(time.Hour, release.Done, "gc"), gc(40*time.Hour, release.Done, "gc")}, pipelines, 23 * time.Hour},
		"one long ago":               {[]release.Change{gc(40*time.Hour, release.Done, "gc")}, pipelines, time.Minute},
		"one that was killed":        {[]release.Change{gc(time.Hour, release.Failed, "gc")}, pipelines, time.Minute},
		"a dry run does not count":   {[]release.Change{gc(time.Minute, release.Done, "gc, dry run"), gc(time.Hour, release.Done, "gc")}, pipelines, 23 * time.Hour},
		"a clock that was set back":  {[]release.Change{gc(-40*time.Hour, release.Done, "gc")}, pipelines, 24 * time.Hour},
		"an aborted one is due, too": {[]release.Change{gc(time.Hour, release.Aborted, "gc")}, pipelines, time.Minute},
	} {
		if got := firstGC(c.changes, c.pipelines, 24*time.Hour, now); got != c.want {
			t.Errorf("%s: in %s, want %s", name, got, c.want)
		}
	}
}

// What a device has, wants or follows is what must not go.
func TestDeployedOn(t *testing.T) {
	one, two, three := snapshots.ID{1}, snapshots.ID{2}, snapshots.ID{3}
	report := protocol.Report{
		Follow: "snapshot:20261120T101500Z", Wanted: three.String(),
		Deployments: []protocol.Deployment{
			{State: one.String(), Snapshot: "20261119T101500Z", Role: "booted"}, {State: two.String(), Role: "rollback"}, {State: "nonsense", Role: "staged"},
		},
	}
	want := []release.Deployed{
		{Device: "bench", Pipeline: "demo", Role: "booted", State: one, Snapshot: "20261119T101500Z"},
		{Device: "bench", Pipeline: "demo", Role: "rollback", State: two},
		{Device: "bench", Pipeline: "demo", Role: "wanted", State: three},
		{Device: "bench", Pipeline: "demo", Role: "followed", Snapshot: "20261120T101500Z"},
	}
	got := deployedOn(fleet.Device{Name: "bench", Pipeline: "demo", Contact: fleet.Contact{Report: &report}})
	if len(got) != len(want) {
		t.Fatalf("deployed are %+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
	report = protocol.Report{Follow: "state:" + one.String()}
	if got := deployedOn(fleet.Device{Name: "b", Pipeline: "p", Contact: fleet.Contact{Report: &report}}); len(got) != 1 || got[0].State != one {
		t.Errorf("a device that follows a state: %+v", got)
	}
}
