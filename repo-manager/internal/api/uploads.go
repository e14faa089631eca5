package api

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/gin-gonic/gin"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
)

// What one request may bring: control files are in memory until all of it has
// arrived.
const (
	maxUploads  = 4096
	maxControls = 64 << 20 // bytes of all control files together
)

// uploadAll adds the .debs of a tar archive: one request, and one state, for
// what would be thousands. Each is taken or refused by itself and answered in
// its place: with status 200 all are there, with 207 (RFC 4918, 11.1) not. An
// archive that breaks off adds nothing.
func uploadAll(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	ctx, pipeline, repository := c.Request.Context(), c.Param("p"), c.Param("r")
	older, err := flag(c, "allow-older")
	if err != nil {
		return 0, nil, err
	}
	if err := s.mayReceive(c, pipeline, repository); err != nil {
		return 0, nil, err
	}
	u := uploads{answers: []protocol.Uploaded{}}
	defer func() {
		for _, in := range u.received {
			s.discard(in)
		}
	}()
	if err := s.receiveAll(c, &u); err != nil {
		return 0, nil, err
	}
	for i, added := range s.Releases.AddAll(ctx, who.Actor(), pipeline, repository, u.received, older) {
		answer := &u.answers[u.places[i]]
		if added.Err != nil {
			s.refuse(c, answer, added.Err)
			continue
		}
		upload := toUpload(added.Upload)
		answer.Status, answer.Upload = http.StatusCreated, &upload
		if added.Already {
			answer.Status = http.StatusOK
		}
	}
	for _, answer := range u.answers {
		if answer.Error != nil {
			return http.StatusMultiStatus, u.answers, nil
		}
	}
	return http.StatusOK, u.answers, nil
}

// refuse answers for one file as fail does for a request.
func (s *server) refuse(c *gin.Context, answer *protocol.Uploaded, err error) {
	status, body := told(c, err)
	answer.Status, answer.Error = status, &body
	s.Log.Info("a file was not added", "id", c.Writer.Header().Get(requestIDHeader), "file", fileName(answer.File), "status", status, "error", err)
}

// uploads is what a request brought.
type uploads struct {
	answers  []protocol.Uploaded // one for each file
	received []release.Incoming
	places   []int // in answers, of each that was received
}

// receiveAll receives the files of a request.
func (s *server) receiveAll(c *gin.Context, u *uploads) error {
	body := s.patient(c, c.Request.Body)
	defer body.release()
	archive := tar.NewReader(bufio.NewReaderSize(body, 256<<10))
	for controls := 0; ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return &release.Error{
				Code: release.Invalid, Text: fmt.Sprintf("cannot read the tar archive of packages after %d files: %v", len(u.answers), err),
				Hint: "send it again; nothing was added", Err: err,
			}
		}
		if header.Typeflag == tar.TypeDir {
			continue
		}
		if len(u.answers) == maxUploads {
			return tooMany("more than %d files", maxUploads)
		}
		u.answers = append(u.answers, protocol.Uploaded{File: header.Name})
		in, err := s.receiveOne(c, archive, header)
		if err != nil {
			s.refuse(c, &u.answers[len(u.answers)-1], err)
			continue
		}
		u.received = append(u.received, in)
		u.places = append(u.places, len(u.answers)-1)
		if controls += len(in.Package.Control.Bytes()); controls > maxControls {
			return tooMany("control files of more than %d bytes together", maxControls)
		}
	}
}

func (s *server) receiveOne(c *gin.Context, archive *tar.Reader, header *tar.Header) (release.Incoming, error) {
	name := fileName(header.Name)
	if header.Typeflag != tar.TypeReg {
		return release.Incoming{}, invalid("", "cannot add %s: it is no regular file", name)
	}
	if header.Size > s.MaxUpload {
		return release.Incoming{}, tooLarge(name, s.MaxUpload)
	}
	return s.Receiver.Receive(c.Request.Context(), archive, name)
}

func tooMany(format string, limit int) error {
	return &release.Error{
		Code: release.TooLarge, Text: fmt.Sprintf("cannot take the packages: the archive holds "+format, limit),
		Hint: "send them in several requests; nothing was added",
	}
}
