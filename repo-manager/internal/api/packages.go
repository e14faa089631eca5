package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"aptfleet/internal/term"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
)

// upload receives the body and hands it to the engine.
// The query's name is the file's name in messages and nothing else: what the
// package is called is in its control file.
func upload(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	pipeline, repository := c.Param("p"), c.Param("r")
	older, err := flag(c, "allow-older")
	if err != nil {
		return 0, nil, err
	}
	if err := s.mayReceive(c, pipeline, repository); err != nil {
		return 0, nil, err
	}
	var done release.Upload
	err = s.receive(c, func(ctx context.Context, in release.Incoming) (err error) {
		done, err = s.Releases.Add(ctx, who.Actor(), pipeline, repository, in, older)
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

// receive receives the body of a request, of which nothing is left once use has
// returned.
func (s *server) receive(c *gin.Context, use func(context.Context, release.Incoming) error) error {
	ctx, name := c.Request.Context(), fileName(c.Query("name"))
	if c.Request.ContentLength > s.MaxUpload {
		return tooLarge(name, s.MaxUpload)
	}
	body := s.patient(c, http.MaxBytesReader(c.Writer, c.Request.Body, s.MaxUpload))
	defer body.release()
	in, err := s.Receiver.Receive(ctx, body, name)
	if err != nil {
		return err
	}
	defer s.discard(in)
	return use(ctx, in)
}

// discard removes what is left of an upload.
func (s *server) discard(in release.Incoming) {
	if err := in.Discard(); err != nil {
		s.Log.Error("cannot remove an upload", "error", err)
	}
}

// maxName bounds a file's name in messages, in bytes.
const maxName = 255

// fileName makes the name that a client gave to its file fit for messages.
func fileName(given string) string {
	if given == "" {
		return "the package"
	}
	return printable(strings.ToValidUTF8(given[:min(len(given), maxName)], ""))
}

// patient reads a body that may take as long as it likes, as long as it goes
// on: a connection that is silent for too long is given up.
type patient struct {
	body    io.Reader
	conn    *http.ResponseController
	silence time.Duration
}

func (s *server) patient(c *gin.Context, body io.Reader) *patient {
	return &patient{body: body, conn: http.NewResponseController(c.Writer), silence: s.silence}
}

// Read reads from the body. A connection without deadlines, as in a test, is
// waited for without one.
func (p *patient) Read(b []byte) (int, error) {
	if err := p.conn.SetReadDeadline(time.Now().Add(p.silence)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return p.body.Read(b)
}

// release takes the deadline off the connection, which may carry more
// requests. If that fails the connection is gone, and with it the deadline.
func (p *patient) release() { _ = p.conn.SetReadDeadline(time.Time{}) }

// mayReceive refuses an upload to a place that takes none, before its body
// is read.
func (s *server) mayReceive(c *gin.Context, pipeline, repository string) error {
	p, err := s.Releases.Pipeline(c.Request.Context(), pipeline)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(p.Components, func(component release.Component) bool { return component.Name == repository })
	if i < 0 {
		return notFound("repo-manager repository list shows them", "repository", repository)
	}
	if p.Components[i].Kind != release.Repository {
		return &release.Error{
			Code: release.Refused,
			Text: fmt.Sprintf("cannot upload to %s: it is a mirror and follows its upstream", repository),
			Hint: "repo-manager repository list shows where uploads go",
		}
	}
	return nil
}

func tooLarge(name string, limit int64) error {
	return &release.Error{
		Code: release.TooLarge,
		Text: fmt.Sprintf("cannot take %s: it is larger than %s", name, term.HumanBytes(limit)),
	}
}

func removePackage(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	removed, err := s.Releases.Remove(c.Request.Context(), who.Actor(),
		c.Param("p"), c.Param("r"), c.Param("name"), c.Query("version"))
	return http.StatusOK, list(removed, toPackage), err
}

func listPackages(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	var limit int64
	if text := c.Query("limit"); text != "" {
		var err error
		if limit, err = number("limit", text, 1); err != nil {
			return 0, nil, err
		}
	}
	found, err := s.Releases.Packages(c.Request.Context(), c.Param("p"), c.Query("ref"),
		release.Filter{Component: c.Query("component"), Name: c.Query("name"), Query: c.Query("query"), Limit: int(limit)})
	return http.StatusOK, list(found, toPackage), err
}
