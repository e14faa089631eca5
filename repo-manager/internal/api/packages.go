package api

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/gin-gonic/gin"

	"aptfleet/internal/term"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
)

// upload streams the body into a temporary file and hands it to the engine.
// The query's name is the file's name in messages and nothing else: what the
// package is called is in its control file.
func upload(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	ctx, pipeline, repository := c.Request.Context(), c.Param("p"), c.Param("r")
	name := printable(c.Query("name"))
	if name == "" {
		name = "the package"
	}
	older, err := flag(c, "allow-older")
	if err != nil {
		return 0, nil, err
	}
	if err := s.mayReceive(c, pipeline, repository); err != nil {
		return 0, nil, err
	}
	if c.Request.ContentLength > s.MaxUpload {
		return 0, nil, tooLarge(name, s.MaxUpload)
	}
	body := http.MaxBytesReader(c.Writer, c.Request.Body, s.MaxUpload)
	in, err := s.Receiver.Receive(ctx, body, name)
	if err != nil {
		return 0, nil, err
	}
	defer func() {
		if err := in.Discard(); err != nil {
			s.Log.Error("cannot remove an upload", "error", err)
		}
	}()
	done, err := s.Releases.Add(ctx, who.Actor(), pipeline, repository, in, older)
	if err != nil {
		return 0, nil, err
	}
	if done.Already {
		return http.StatusOK, toUpload(done), nil
	}
	return http.StatusCreated, toUpload(done), nil
}

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
		release.Filter{Component: c.Query("component"), Name: c.Query("name"), Limit: int(limit)})
	return http.StatusOK, list(found, toPackage), err
}
