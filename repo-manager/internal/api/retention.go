package api

import (
	"cmp"
	"net/http"

	"github.com/gin-gonic/gin"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
)

func setPipeline(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.SetPipeline
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	p, err := s.Releases.SetRetention(c.Request.Context(), who.Actor(), c.Param("p"), func(r release.Retention) release.Retention {
		if in.KeepStates != nil {
			r.States = *in.KeepStates
		}
		if in.KeepDays != nil {
			r.Days = *in.KeepDays
		}
		return r
	})
	if err == nil && in.Private != nil {
		p, err = s.Releases.SetPrivate(c.Request.Context(), who.Actor(), c.Param("p"), *in.Private)
	}
	return http.StatusOK, toPipeline(p), err
}

func pinSnapshot(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.NewPin
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	snapshot, err := s.Releases.PinSnapshot(c.Request.Context(), who.Actor(), c.Param("p"), c.Param("ref"), in.Reason)
	return s.snapshotAnswer(c, snapshot, err)
}

func unpinSnapshot(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	snapshot, err := s.Releases.UnpinSnapshot(c.Request.Context(), who.Actor(), c.Param("p"), c.Param("ref"), c.Query("reason"))
	return s.snapshotAnswer(c, snapshot, err)
}

// deleteSnapshot answers with what is gone or, with dry-run=1, could go.
func deleteSnapshot(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	dryRun, err := flag(c, "dry-run")
	if err != nil {
		return 0, nil, err
	}
	snapshot, err := s.Releases.DeleteSnapshot(c.Request.Context(), who.Actor(), c.Param("p"), c.Param("ref"), c.Query("reason"), dryRun)
	return s.snapshotAnswer(c, snapshot, err)
}

func (s *server) snapshotAnswer(c *gin.Context, snapshot release.Snapshot, err error) (int, any, error) {
	if err != nil {
		return 0, nil, err
	}
	stages, err := s.Releases.Stages(c.Request.Context(), c.Param("p"))
	return http.StatusOK, toSnapshot(stages)(snapshot), err
}

// startGC answers with the change that does it.
func startGC(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.StartGC
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	change, err := s.Releases.CollectGarbage(c.Request.Context(), who.Actor(), in.Reason, in.DryRun)
	return http.StatusAccepted, toChange(change), err
}

func toPin(p *release.Pin) *protocol.Pin {
	if p == nil {
		return nil
	}
	return &protocol.Pin{By: p.By, Reason: p.Reason, At: p.At.UTC()}
}

// fromRetention is what a request says; nothing is the default.
func fromRetention(r *protocol.Retention) release.Retention {
	if r == nil {
		return release.Retention{}
	}
	return release.Retention{States: cmp.Or(r.States, -1), Days: r.Days}
}
