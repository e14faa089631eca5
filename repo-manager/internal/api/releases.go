package api

import (
	"net/http"
	"slices"

	"github.com/gin-gonic/gin"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
)

func listPipelines(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	pipelines, err := s.Releases.Pipelines(c.Request.Context())
	pipelines = seen(who, pipelines, func(p release.Pipeline) string { return p.Name })
	return http.StatusOK, list(pipelines, toPipeline), err
}

func getPipeline(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	p, err := s.Releases.Pipeline(c.Request.Context(), c.Param("p"))
	return http.StatusOK, toPipeline(p), err
}

func createPipeline(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.Pipeline
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	p, err := s.Releases.CreatePipeline(c.Request.Context(), who.Actor(), release.Pipeline{
		Name: in.Name, Distribution: in.Distribution, Architectures: in.Architectures, Stages: in.Stages, Retention: fromRetention(in.Retention), Private: in.Private,
	})
	return http.StatusCreated, toPipeline(p), err
}

func createRepository(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.Component
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	if in.Mirror != nil {
		return 0, nil, invalid("mirrors are made with: repo-manager mirror create", "cannot create repository %q: a repository follows no upstream", in.Name)
	}
	component, err := s.Releases.CreateRepository(c.Request.Context(), who.Actor(), c.Param("p"), in.Name, in.Keep)
	return http.StatusCreated, toComponent(component), err
}

func listSnapshots(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	ctx, pipeline := c.Request.Context(), c.Param("p")
	all, err := s.Releases.Snapshots(ctx, pipeline)
	if err != nil {
		return 0, nil, err
	}
	stages, err := s.Releases.Stages(ctx, pipeline)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, list(all, toSnapshot(stages)), nil
}

// getSnapshot finds a snapshot by its id, a unique prefix, or a stage.
func getSnapshot(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	ctx, pipeline := c.Request.Context(), c.Param("p")
	snapshot, err := s.Releases.Snapshot(ctx, pipeline, c.Param("ref"))
	if err != nil {
		return 0, nil, err
	}
	stages, err := s.Releases.Stages(ctx, pipeline)
	return http.StatusOK, toSnapshot(stages)(snapshot), err
}

func createSnapshot(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.NewSnapshot
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	ctx, pipeline := c.Request.Context(), c.Param("p")
	snapshot, err := s.Releases.CreateSnapshot(ctx, who.Actor(), pipeline, in.From, in.Note, in.Labels)
	if err != nil {
		return 0, nil, err
	}
	stages, err := s.Releases.Stages(ctx, pipeline)
	return http.StatusCreated, toSnapshot(stages)(snapshot), err
}

func getDiff(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	from, to := c.Query("from"), c.Query("to")
	if from == "" || to == "" {
		return 0, nil, invalid("both take a snapshot's id, a stage's name or a state's id", "cannot compare: the query needs from and to")
	}
	a, b, differences, err := s.Releases.Diff(c.Request.Context(), c.Param("p"), from, to)
	return http.StatusOK, protocol.Diff{
		From: stateText(a.State), To: stateText(b.State), Differences: list(differences, toDifference),
	}, err
}

func listStages(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	stages, err := s.Releases.Stages(c.Request.Context(), c.Param("p"))
	return http.StatusOK, list(stages, toStage), err
}

func getStage(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	stages, err := s.Releases.Stages(c.Request.Context(), c.Param("p"))
	if err != nil {
		return 0, nil, err
	}
	name := c.Param("s")
	i := slices.IndexFunc(stages, func(stage release.Stage) bool { return stage.Name == name })
	if i < 0 {
		return 0, nil, notFound("repo-manager stage list shows them", "stage", name)
	}
	return http.StatusOK, toStage(stages[i]), nil
}

func getHistory(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	moves, err := s.Releases.History(c.Request.Context(), c.Param("p"), c.Param("s"))
	return http.StatusOK, list(moves, toMove), err
}

func promote(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.Promote
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	if in.Snapshot == "" {
		return 0, nil, invalid("send: {snapshot, reason}", "cannot promote to %s: the request names no snapshot", printable(c.Param("s")))
	}
	expect, err := expected(in.Expect)
	if err != nil {
		return 0, nil, err
	}
	move, err := s.Releases.Promote(c.Request.Context(), who.Actor(), c.Param("p"), in.Snapshot, c.Param("s"), in.Reason, expect, in.DryRun)
	return http.StatusOK, toMove(move), err
}

func undo(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.Promote
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	expect, err := expected(in.Expect)
	if err != nil {
		return 0, nil, err
	}
	if in.DryRun {
		return 0, nil, invalid("stage history shows what an undo goes back to", "cannot undo without undoing: dry_run is for promotions")
	}
	move, err := s.Releases.Undo(c.Request.Context(), who.Actor(), c.Param("p"), c.Param("s"), in.Reason, expect)
	return http.StatusOK, toMove(move), err
}
