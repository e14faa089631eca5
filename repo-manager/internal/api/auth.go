package api

import (
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/gin-gonic/gin"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
)

// csrfHeader carries the CSRF token of a session.
const csrfHeader = "X-CSRF-Token"

// authenticate finds out who sent a request.
func (s *server) authenticate(c *gin.Context) (access.Identity, error) {
	r := c.Request
	if header := r.Header.Get("Authorization"); header != "" {
		secret, ok := tokenOf(r)
		if !ok {
			return access.Identity{}, &release.Error{
				Code: release.NoAccess,
				Text: "cannot tell who is asking: the Authorization header is neither Bearer nor Basic",
				Hint: "send: Authorization: Bearer TOKEN",
			}
		}
		return s.Access.ByToken(r.Context(), secret)
	}
	if who, ok := access.FromContext(r.Context()); ok {
		return who, nil
	}
	cookie, err := r.Cookie(access.CookieName)
	if err != nil || cookie.Value == "" {
		return access.Identity{}, &release.Error{
			Code: release.NoAccess,
			Text: "cannot tell who is asking: the request has no token",
			Hint: "send Authorization: Bearer TOKEN (or the token as Basic password); an admin makes one with: repo-manager token create USER",
		}
	}
	who, csrf, err := s.Access.BySession(r.Context(), cookie.Value)
	if err != nil {
		return access.Identity{}, err
	}
	if !safe(r.Method) && subtle.ConstantTimeCompare([]byte(r.Header.Get(csrfHeader)), []byte(csrf)) != 1 {
		return access.Identity{}, &release.Error{
			Code: release.Forbidden,
			Text: "cannot act on a session cookie alone: the header " + csrfHeader + " is missing or wrong",
			Hint: "reload the page and try again",
		}
	}
	return who, nil
}

// tokenOf reads a token from a request: Bearer, or the password of Basic.
func tokenOf(r *http.Request) (string, bool) {
	if scheme, rest, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		secret := strings.TrimSpace(rest)
		return secret, secret != ""
	}
	_, password, ok := r.BasicAuth()
	return password, ok && password != ""
}

// safe reports whether a method promises to change nothing (RFC 9110, 9.2.1).
func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// Guard protects a listener that browsers reach from other sites' pages.
// The Host of a request must be an IP address, localhost or one of hosts
// (without port), so that a name which an attacker points at this machine is
// refused; and an Origin, where there is one, must be that same Host.
func Guard(hosts []string, next http.Handler) http.Handler {
	known := map[string]bool{"localhost": true}
	for _, h := range hosts {
		known[strings.ToLower(h)] = true
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := hostOnly(r.Host)
		if _, err := netip.ParseAddr(name); err != nil && !known[name] {
			writeError(w, r, http.StatusMisdirectedRequest, protocol.Error{
				Code: string(release.Forbidden),
				Text: "cannot answer for the host " + printable(r.Host) + ": it is not one of this server's names",
				Hint: "use the address that repo-manager serve printed, or add the name to the setting hosts",
			})
			return
		}
		if origin := r.Header.Get("Origin"); origin != "" && !safe(r.Method) && !sameHost(origin, r.Host) {
			writeError(w, r, http.StatusForbidden, protocol.Error{
				Code: string(release.Forbidden),
				Text: "cannot act for a page of " + printable(origin) + ": requests must come from this server's own pages",
			})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hostOnly takes the port, brackets and a final dot off a Host header.
func hostOnly(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// sameHost reports whether an Origin names the host of the request. "null",
// which sandboxed pages send, never does.
func sameHost(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, host)
}
