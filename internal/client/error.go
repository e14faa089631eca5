package client

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"syscall"

	"aptfleet/internal/protocol"
)

// The codes that have an exit status of their own. The words are part of the
// API.
const (
	codeRefused   = "refused"
	codeLocked    = "locked"
	codeNoAccess  = "no-access"
	codeForbidden = "forbidden"
)

// Error is an answer with a status of 400 or above.
type Error struct {
	Status int    // of HTTP
	Code   string // protocol.Error's; "http" when the answer was none of the API's
	Text   string // what failed and why
	Hint   string // the next step, or ""
}

func (e *Error) Error() string { return e.Text }

// NextStep returns the hint.
func (e *Error) NextStep() string { return e.Hint }

// ErrorCode returns the code.
func (e *Error) ErrorCode() string { return e.Code }

// ExitCode returns 3 for what a policy refused, 5 for what is not
// authorised, 11 for what another change holds, else 1.
func (e *Error) ExitCode() int {
	switch e.Code {
	case codeRefused:
		return 3
	case codeNoAccess, codeForbidden:
		return 5
	case codeLocked:
		return 11
	}
	return 1
}

// Unreachable says that no answer came.
type Unreachable struct {
	Where string // URL or path of the socket
	Err   error
}

func (e *Unreachable) Error() string {
	return fmt.Sprintf("cannot reach the server at %s: %v", e.Where, e.Err)
}
func (e *Unreachable) Unwrap() error { return e.Err }

// ErrorCode returns "unreachable".
func (e *Unreachable) ErrorCode() string { return "unreachable" }

// ExitCode returns 5 if the socket exists and may not be opened, else 1.
func (e *Unreachable) ExitCode() int {
	if errors.Is(e.Err, fs.ErrPermission) {
		return 5
	}
	return 1
}

// NextStep tells how to reach a server.
func (e *Unreachable) NextStep() string {
	onSocket := strings.HasPrefix(e.Where, "/")
	var stranger x509.UnknownAuthorityError
	var misnamed x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(e.Err, &stranger):
		return "if the server has a CA of its own: fetch " + e.Where + "/ca.pem (curl --insecure --output ca.pem), compare its SHA-256 with that of \"repo-manager key ca\" on the server, and name the file with --ca or APTFLEET_CA"
	case errors.As(e.Err, &misnamed):
		return "use a name that the certificate has, or add this one to the setting hosts of the server"
	case errors.As(e.Err, &invalid) && invalid.Reason == x509.Expired:
		return "is the clock of this machine right? A server renews a certificate of its own; others must be renewed where they come from"
	case errors.Is(e.Err, fs.ErrPermission):
		return "become a member of the socket's group, or use --server URL with --token"
	case onSocket && (errors.Is(e.Err, fs.ErrNotExist) || errors.Is(e.Err, syscall.ECONNREFUSED)):
		return "start it with: repo-manager serve, or name it with --data DIR, --socket PATH or --server URL"
	}
	return "is it running, and is this its admin listener?"
}

// errorOf is what a server said, as an error.
func errorOf(status int, e protocol.Error) *Error {
	return &Error{Status: status, Code: e.Code, Text: e.Text, Hint: e.Hint}
}

// maxError bounds the bytes read of an answer that says what went wrong.
const maxError = 64 << 10

// readError makes an Error of an answer that is no success.
func readError(resp *http.Response) error {
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxError))
	if err != nil {
		raw = nil // the status alone tells enough
	}
	var body protocol.ErrorBody
	if json.Unmarshal(raw, &body) == nil && body.Error.Text != "" {
		return errorOf(resp.StatusCode, body.Error)
	}
	hint := "is this the admin listener of a repo-manager?"
	if strings.Contains(string(raw), "HTTP request to an HTTPS server") { // net/http says so
		hint = "this listener speaks TLS: use https://" + resp.Request.URL.Host
	}
	return &Error{
		Status: resp.StatusCode,
		Code:   "http",
		Text:   fmt.Sprintf("cannot use the answer of %s: HTTP %s", resp.Request.URL.Redacted(), resp.Status),
		Hint:   hint,
	}
}
