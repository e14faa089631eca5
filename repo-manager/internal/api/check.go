package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
)

// lineStream is the media type of one JSON value a line.
const lineStream = "application/x-ndjson"

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
	if strings.Contains(c.GetHeader("Accept"), lineStream) {
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
	ctx, cancel := context.WithCancel(c.Request.Context())
	defer cancel()
	c.Writer.Header().Set("Content-Type", lineStream)
	c.Writer.WriteHeader(http.StatusOK)
	lines := &checkWriter{
		encode: json.NewEncoder(c.Writer).Encode, flush: http.NewResponseController(c.Writer).Flush, gone: cancel,
		every: s.progress,
	}
	report, err := work(ctx, lines.progress)
	last := protocol.CheckLine{Files: report.Files, Bytes: report.Bytes}
	if err != nil {
		c.Set(keyError, err)
		_, body := told(c, err)
		last.Error = &body
	} else {
		full := toCheck(report)
		last.Report = &full
	}
	lines.write(last)
}

// checkWriter writes lines of progress, not too many. The check may report
// from several goroutines.
type checkWriter struct {
	encode func(any) error
	flush  func() error
	gone   func() // called when nobody reads any more
	every  time.Duration

	mu   sync.Mutex
	last time.Time
}

func (w *checkWriter) progress(files, bytes int64) {
	w.mu.Lock()
	due := time.Since(w.last) >= w.every
	if due {
		w.last = time.Now()
	}
	w.mu.Unlock()
	if due {
		w.write(protocol.CheckLine{Files: files, Bytes: bytes})
	}
}

func (w *checkWriter) write(line protocol.CheckLine) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.encode(line); err != nil {
		w.gone()
		return
	}
	if err := w.flush(); err != nil {
		w.gone()
	}
}
