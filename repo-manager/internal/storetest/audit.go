package storetest

import (
	"testing"
	"time"

	"aptfleet/repo-manager/internal/release"
)

// auditTrail is the part of Release about finding acts again.
func auditTrail(t *testing.T, s release.Store) {
	ctx := t.Context()
	var all []release.Act // newest first
	for i, a := range []release.Act{
		{By: "ann", Verb: "promote", Pipeline: "demo", Object: "stage canary"},
		{By: "bob", Verb: "upload", Pipeline: "demo", Object: "repository apps"},
		{By: "ann", Verb: "upload", Pipeline: "other", Object: "repository apps"},
		{By: "ann", Verb: "create", Object: "user bob", Detail: "[viewer]"},
		{By: "annette", Verb: "promote", Pipeline: "demo", Object: "stage canary"},
	} {
		a.At, a.Via = day.Add(time.Duration(i)*time.Minute), "socket"
		must(t, s.Commit(ctx, release.Batch{Acts: []release.Act{a}}))
		all = append([]release.Act{a}, all...)
	}
	for _, c := range []struct {
		name   string
		filter release.ActFilter
		want   []release.Act
	}{
		{"all", release.ActFilter{}, all},
		{"newest", release.ActFilter{Limit: 2}, all[:2]},
		{"of a user", release.ActFilter{By: "ann"}, []release.Act{all[1], all[2], all[4]}},
		{"newest of a user", release.ActFilter{By: "ann", Limit: 1}, all[1:2]},
		{"in a pipeline", release.ActFilter{Pipeline: "demo"}, []release.Act{all[0], all[3], all[4]}},
		{"of a user in a pipeline", release.ActFilter{By: "ann", Pipeline: "demo"}, all[4:]},
		{"since then", release.ActFilter{Since: day.Add(3 * time.Minute)}, all[:2]},
		{"since then in a pipeline", release.ActFilter{Since: day.Add(time.Minute), Pipeline: "demo"}, []release.Act{all[0], all[3]}},
		{"of nobody", release.ActFilter{By: "eve"}, nil},
		{"since tomorrow", release.ActFilter{Since: day.Add(24 * time.Hour)}, nil},
	} {
		same(t, c.name, must1(s.FindActs(ctx, c.filter)), c.want)
	}
}
