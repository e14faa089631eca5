package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"sync"

	"github.com/gin-gonic/gin"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
)

// What devices ask of the public listener; docs/device-protocol.md.
const (
	devicePrefix   = "/device/"
	enrolmentsPath = "/device/v1/enrolments"
	checkInsPath   = "/device/v1/check-ins"
)

// statusOfRefusal is the HTTP status of what a device is told.
func statusOfRefusal(code string) int {
	switch code {
	case protocol.CodeUnknownDevice, protocol.CodeBadSignature:
		return http.StatusUnauthorized
	case protocol.CodeRetired, protocol.CodeRefused:
		return http.StatusForbidden
	case protocol.CodeReplay:
		return http.StatusConflict
	}
	return http.StatusBadRequest
}

// bodies holds buffers for what devices send.
var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// readSigned reads what a device sent. Nothing of it can be trusted before it
// is verified.
func readSigned(c *gin.Context) (signed protocol.Signed, err error) {
	buffer := bodies.Get().(*bytes.Buffer)
	defer bodies.Put(buffer)
	buffer.Reset()
	if _, err := buffer.ReadFrom(http.MaxBytesReader(c.Writer, c.Request.Body, protocol.MaxCheckIn)); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) || c.Request.Context().Err() != nil {
			return signed, err
		}
		return signed, invalid("", "cannot read the request: %v", err)
	}
	if err := json.Unmarshal(buffer.Bytes(), &signed); err != nil {
		return signed, invalid("", "cannot read the request: its body is no signed text: %v", err)
	}
	return signed, nil
}

// addressOf is where a request comes from, without the port.
func addressOf(r *http.Request) string {
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return at.Addr().Unmap().String()
	}
	return ""
}

func deviceEnrol(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	signed, err := readSigned(c)
	if err != nil {
		return 0, nil, err
	}
	answer, err := s.Fleet.Enrol(c.Request.Context(), signed, addressOf(c.Request))
	if err == nil && answer.Status == protocol.EnrolmentPending {
		return http.StatusAccepted, answer, nil
	}
	return http.StatusOK, answer, err
}

// deviceCheckIn answers nearly all check-ins with nothing; those are not in the
// log either.
func deviceCheckIn(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	signed, err := readSigned(c)
	if err != nil {
		return 0, nil, err
	}
	answer, err := s.Fleet.CheckIn(c.Request.Context(), signed, addressOf(c.Request))
	if err == nil && answer == nil {
		c.Set(keyQuiet, true)
		return http.StatusNoContent, nil, nil
	}
	return http.StatusOK, answer, err
}
