package api

import (
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// rules are the words for what a merge does with conflicts.
var rules = map[string]snapshots.Rule{"": snapshots.Refuse, "refuse": snapshots.Refuse, "latest": snapshots.Latest, "first": snapshots.First}

func mergeSnapshots(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.Merge
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	rule, ok := rules[in.OnConflict]
	if !ok {
		return 0, nil, invalid("repo-manager snapshot merge --help", "cannot use %s as the rule for conflicts: want refuse, latest or first", strconv.Quote(in.OnConflict))
	}
	composed, err := s.Releases.Merge(c.Request.Context(), who.Actor(), c.Param("p"), in.States, rule,
		release.Naming{Note: in.Note, Labels: in.Labels, DryRun: in.DryRun})
	return s.composed(c, composed, err)
}

func pickPackages(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.Pick
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	if in.Base == "" || in.From == "" {
		return 0, nil, invalid("send: {base, from, names}", "cannot pick: the request does not name both states")
	}
	composed, err := s.Releases.Pick(c.Request.Context(), who.Actor(), c.Param("p"), in.Base, in.From, in.Names, in.Dependencies,
		release.Naming{Note: in.Note, Labels: in.Labels, DryRun: in.DryRun})
	return s.composed(c, composed, err)
}

func filterState(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.Filter
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	composed, err := s.Releases.FilterState(c.Request.Context(), who.Actor(), c.Param("p"), in.From, in.Query,
		release.Naming{Note: in.Note, Labels: in.Labels, DryRun: in.DryRun})
	return s.composed(c, composed, err)
}

// composed answers with a state that was made, or would be.
func (s *server) composed(c *gin.Context, made release.Composed, err error) (int, any, error) {
	if err != nil {
		return 0, nil, err
	}
	out := protocol.Composed{
		Base: stateText(made.Base.State), State: stateText(made.Snapshot.State), Packages: made.Snapshot.Packages,
		Differences: list(made.Differences, toDifference), Picked: made.Picked,
		Conflicts: list(made.Conflicts, toConflict), Unmet: list(made.Unmet, toUnmet),
	}
	if made.Snapshot.ID == "" {
		return http.StatusOK, out, nil
	}
	stages, err := s.Releases.Stages(c.Request.Context(), c.Param("p"))
	if err != nil {
		return 0, nil, err
	}
	snapshot := toSnapshot(stages)(made.Snapshot)
	out.Snapshot = &snapshot
	return http.StatusCreated, out, nil
}

func toConflict(c snapshots.Conflict) protocol.Conflict {
	versions := list(c.Versions, func(of []string) []string { return append([]string{}, of...) })
	return protocol.Conflict{Component: c.Component, Name: c.Name, Versions: versions, Taken: c.Taken}
}

func toUnmet(u snapshots.Unmet) protocol.Unmet {
	return protocol.Unmet{Package: u.Package.String(), Architecture: u.Architecture, Relation: u.Relation}
}
