package ui

import (
	"crypto/subtle"
	"errors"
	"net"
	"net/http"

	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
)

// loginView is the sign-in page: for a link that works (As), or without one.
type loginView struct {
	frame
	As    string // the user whom Token signs in
	Token string
	Text  string
}

// visitor finds out who asks.
func (s *server) visitor(r *http.Request) (visitor, error) {
	c, err := r.Cookie(access.CookieName)
	if err != nil {
		return visitor{}, &release.Error{Code: release.NoAccess, Text: "cannot tell who is asking: no session", Err: err}
	}
	id, csrf, err := s.Access.BySession(r.Context(), c.Value)
	if err != nil {
		return visitor{}, err
	}
	return visitor{Identity: id, cookie: c.Value, csrf: csrf}, nil
}

// turnAway answers whoever is not signed in: 401, and how to sign in.
func (s *server) turnAway(w http.ResponseWriter, r *http.Request, err error) {
	var known *release.Error
	if !errors.As(err, &known) || known.Code != release.NoAccess {
		s.fail(w, r, visitor{}, err)
		return
	}
	text := "This server shows its pipelines to people it knows."
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		text = "Nothing was done: everyone who acts here has a name, and this request had none."
	}
	s.render(w, http.StatusUnauthorized, "login", loginView{frame: frame{Title: "Please sign in"}, Text: text})
}

// showLogin shows whom a link signs in. It does not use the link up: mail
// scanners and browsers fetch links in advance.
func (s *server) showLogin(w http.ResponseWriter, r *http.Request) {
	token := r.URL.Query().Get("token")
	if token == "" {
		if _, err := s.visitor(r); err == nil {
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
		s.turnAway(w, r, &release.Error{Code: release.NoAccess})
		return
	}
	user, err := s.Access.LinkUser(r.Context(), token)
	if err != nil {
		s.refuseLink(w, r, err)
		return
	}
	s.render(w, http.StatusOK, "login", loginView{frame: frame{Title: "Sign in"}, As: user, Token: token})
}

// login uses the link up and starts the session. The link's token is the
// secret of this form; there is no session yet that could have another.
func (s *server) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := s.origin.Check(r); err != nil {
		s.fail(w, r, visitor{}, &release.Error{Code: release.Forbidden, Text: "cannot accept the form: it was sent from another site", Err: err})
		return
	}
	cookie, expires, err := s.Access.Redeem(r.Context(), r.PostFormValue("token"), originOf(r))
	if err != nil {
		s.refuseLink(w, r, err)
		return
	}
	http.SetCookie(w, s.cookie(http.Cookie{Value: cookie, Expires: expires}))
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// originOf is where a request came from: behind a proxy, the proxy's address.
func originOf(r *http.Request) access.Origin {
	address, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		address = r.RemoteAddr
	}
	return access.Origin{Address: address, Browser: access.BrowserName(r.UserAgent())}
}

func (s *server) refuseLink(w http.ResponseWriter, r *http.Request, err error) {
	var known *release.Error
	if !errors.As(err, &known) || known.Code != release.NoAccess {
		s.fail(w, r, visitor{}, err)
		return
	}
	s.render(w, http.StatusUnauthorized, "login", loginView{
		frame: frame{Title: "This link does not work any more"},
		Text:  "Each link works once and only for a while; this one was used or has expired.",
	})
}

func (s *server) logout(w http.ResponseWriter, r *http.Request, v visitor) error {
	if err := s.Access.EndSession(r.Context(), v.cookie); err != nil {
		return err
	}
	http.SetCookie(w, s.cookie(http.Cookie{MaxAge: -1}))
	http.Redirect(w, r, "/login", http.StatusSeeOther)
	return nil
}

// cookie completes the session cookie. SameSite is Lax, so that a link to a
// review in a chat finds its reader signed in; a GET never acts, and a POST
// from another site carries no cookie.
func (s *server) cookie(c http.Cookie) *http.Cookie {
	c.Name, c.Path = access.CookieName, "/"
	c.HttpOnly, c.Secure, c.SameSite = true, s.Secure, http.SameSiteLaxMode
	return &c
}

// sameSecret compares in constant time; an empty secret equals nothing.
func sameSecret(got, want string) bool {
	return want != "" && subtle.ConstantTimeCompare([]byte(got), []byte(want)) == 1
}
