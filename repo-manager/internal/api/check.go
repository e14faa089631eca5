package api

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
)

// checking is a check or a repair.
type checking func(ctx context.Context, progress func(files, bytes int64)) (release.Report, error)

// check reads every published file and stops when its client leaves; with
// repair it mends what it can and goes on. It answers when it is done; a client
// that accepts lines is told meanwhile how far it is.
func check(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	repair, err := flag(c, "repair")
	if err != nil {
		return 0, nil, err
	}
	work := checking(s.Releases.Check)
	if repair {
		work = func(ctx context.Context, progress func(files, bytes int64)) (release.Report, error) {
			return s.Releases.Repair(ctx, who.Actor(), progress)
		}
	}
	if wantsLines(c) {
		s.checkLines(c, work)
		return 0, nil, nil
	}
	report, err := work(c.Request.Context(), nil)
	return http.StatusOK, toCheck(report), err
}

func toCheck(r release.Report) protocol.Check {
	u := r.Usage
	return protocol.Check{
		Files: r.Files, Bytes: r.Bytes, Findings: list(r.Findings, toFinding),
		Usage: protocol.Usage{Pool: u.Pool, Indices: u.Indices, Superseded: u.Superseded, States: u.States, Chunks: u.Chunks, Frames: u.Frames},
	}
}

// restoreFile takes a package file that the pool has lost.
func restoreFile(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var done release.Upload
	err := s.receive(c, func(ctx context.Context, in release.Incoming) (err error) {
		done, err = s.Releases.RestoreFile(ctx, who.Actor(), in)
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	if done.Already {
		return http.StatusOK, toUpload(done), nil
	}
	return http.StatusCreated, toUpload(done), nil
}

// checkLines answers with protocol.CheckLine values.
func (s *server) checkLines(c *gin.Context, work checking) {
	lines, ctx, cancel := s.lines(c)
	defer cancel()
	report, err := work(ctx, func(files, bytes int64) { lines.progress(protocol.CheckLine{Files: files, Bytes: bytes}) })
	last := protocol.CheckLine{Files: report.Files, Bytes: report.Bytes}
	if err != nil {
		c.Set(keyError, err)
		_, body := told(c, err)
		last.Error = &body
	} else {
		full := toCheck(report)
		last.Report = &full
	}
	lines.end(last)
}
