package fleet_test

import (
	"context"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/repo-manager/internal/storetest"
)

// counting counts what is written about reports.
type counting struct {
	*storetest.Memory
	reports int
}

func (c *counting) PutReport(ctx context.Context, name string, report protocol.Report, seen time.Time) error {
	c.reports++
	return c.Memory.PutReport(ctx, name, report, seen)
}

func TestFleet(t *testing.T) {
	ctx := t.Context()
	now := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	store := &counting{Memory: new(storetest.Memory)}
	if err := store.Commit(ctx, release.Batch{Pipelines: []release.Pipeline{{Name: "demo", Created: now}}}); err != nil {
		t.Fatal(err)
	}
	var announced []string
	config := fleet.Config{
		Store: store, Clock: func() time.Time { return now },
		Pipeline: func(_ context.Context, name string) (release.Pipeline, error) {
			if name != "demo" {
				return release.Pipeline{}, &release.Error{Code: release.NotFound}
			}
			return release.Pipeline{Name: name}, nil
		},
		Announce: func(kind, pipeline, subject string) { announced = append(announced, kind+" "+pipeline+" "+subject) },
	}
	open := func() *fleet.Service {
		t.Helper()
		s, err := fleet.Open(ctx, config)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	actor := release.Actor{Name: "op", Via: "socket"}
	device, err := s.Create(ctx, actor, "bench-1", "demo")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		name, pipeline string
		code           release.Code
	}{
		"a taken name":       {"bench-1", "demo", release.Conflict},
		"no pipeline":        {"bench-2", "nowhere", release.NotFound},
		"a path":             {"../x", "demo", release.Invalid},
		"control characters": {"a\x1b", "demo", release.Invalid},
	} {
		if _, err := s.Create(ctx, actor, c.name, c.pipeline); release.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}

	report := protocol.Report{Follow: "production", Phase: "IDLE", Deployments: []protocol.Deployment{{ID: 1, State: "abc", Role: "booted"}}}
	send := func(report protocol.Report) {
		t.Helper()
		now = now.Add(time.Minute)
		if err := s.Report(ctx, device.Token, report); err != nil {
			t.Fatal(err)
		}
	}
	send(report)
	for range 5 {
		send(report)
	}
	if store.reports != 1 {
		t.Errorf("six equal reports were written %d times", store.reports)
	}
	known, err := s.Device(ctx, "bench-1")
	if err != nil || !known.Seen.Equal(now) || known.Report.Phase != "IDLE" || known.Token != "" {
		t.Errorf("the device is %+v, %v", known, err)
	}
	report.Phase = "DOWNLOAD"
	send(report)
	if store.reports != 2 {
		t.Errorf("a changed report was not written")
	}
	if err := s.Report(ctx, "nonsense", report); release.CodeOf(err) != release.NoAccess {
		t.Errorf("a report with an unknown token: %v", err)
	}
	if len(announced) != 3 {
		t.Errorf("announced are %q, want the creation and two reports", announced)
	}

	s = open()
	send(report)
	devices, err := s.Devices(ctx)
	if err != nil || len(devices) != 1 || devices[0].Report.Phase != "DOWNLOAD" {
		t.Errorf("after a restart devices are %+v, %v", devices, err)
	}
	if store.reports != 2 {
		t.Error("the same report after a restart was written again")
	}
	if _, err := s.Device(ctx, "bench-9"); release.CodeOf(err) != release.NotFound {
		t.Errorf("an unknown device: %v", err)
	}
}
