// Package api is the HTTP API of repo-manager: one table of routes with the
// role that each needs, and the handlers behind it. docs/architecture.md
// lists the same table for users.
//
// A request passes, in this order: the guard of the listener (Host and
// Origin, see Guard), a request id and the access log, authentication, the
// role and scope of its row in the table, its handler. A handler returns a
// status and a body, or an error; errors of package release carry the code
// that decides the status, everything else is an internal error whose text
// goes to the log only.
//
// Who acts is known from, in this order: a token (Authorization: Bearer, or
// the password of Basic), the Unix socket's peer, a session cookie. A request
// that changes something and rests on a cookie must also carry the session's
// CSRF token in the header X-CSRF-Token.
//
// gin stays inside this package.
package api
