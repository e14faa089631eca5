package api

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"

	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// maxJSON bounds a JSON body in bytes. A mirror's keyring is the largest
// thing in one.
const maxJSON = 4 << 20

// readJSON decodes a request's body into out. An empty body leaves out as it
// is; fields that out does not have are ignored, as package protocol says.
func readJSON(c *gin.Context, out any) error {
	dec := json.NewDecoder(http.MaxBytesReader(c.Writer, c.Request.Body, maxJSON))
	var tooLarge *http.MaxBytesError
	switch err := dec.Decode(out); {
	case errors.Is(err, io.EOF):
		return nil
	case errors.As(err, &tooLarge):
		return err
	case err != nil:
		return invalid("", "cannot read the request: its body is not the JSON that is wanted: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return invalid("", "cannot read the request: its body goes on after the JSON value")
	}
	return nil
}

// number reads a path or query value as a number of at least min.
func number(what, text string, min int64) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < min {
		return 0, invalid("", "cannot use %q as %s: want a number from %d", text, what, min)
	}
	return n, nil
}

// flag reads a query value as yes or no; it may be absent.
func flag(c *gin.Context, name string) (bool, error) {
	text := c.Query(name)
	if text == "" {
		return false, nil
	}
	yes, err := strconv.ParseBool(text)
	if err != nil {
		return false, invalid("", "cannot use %q as %s: want 1 or 0", text, name)
	}
	return yes, nil
}

// expected reads the state that a caller saw a stage offer.
func expected(text string) (*snapshots.ID, error) {
	if text == "" {
		return nil, nil
	}
	id, err := snapshots.ParseID(text)
	if err != nil {
		return nil, invalid("stage show prints the whole id with --json", "cannot use %q as the expected state: want 64 hexadecimal digits", text)
	}
	return &id, nil
}

// notFound is the error for a name that a list does not have.
func notFound(hint, what, name string) error {
	return &release.Error{
		Code: release.NotFound,
		Text: "cannot find " + what + " " + strconv.Quote(name) + ": there is none of that name",
		Hint: hint,
	}
}
