package ui

import (
	"net/http"
	"slices"
)

// accountView is what a person may do here, and where it is signed in.
type accountView struct {
	frame
	Roles    []string
	Sessions []sessionView
}

// sessionView is one browser.
type sessionView struct {
	Browser string
	Address string
	Created moment
	Seen    moment
	Expires moment
	This    bool // it shows this page
}

func (s *server) account(w http.ResponseWriter, r *http.Request, v visitor) error {
	sessions, err := s.Access.SessionsOf(r.Context(), v.User)
	if err != nil {
		return err
	}
	slices.Reverse(sessions) // the newest first
	now := s.Clock()
	view := accountView{frame: s.frame(v, "", "Your account"), Roles: v.Roles}
	for _, session := range sessions {
		view.Sessions = append(view.Sessions, sessionView{
			Browser: session.From.Browser, Address: session.From.Address, This: session.ID == v.Session,
			Created: at(now, session.Created), Seen: at(now, session.Seen), Expires: at(now, session.Expires),
		})
	}
	s.render(w, http.StatusOK, "account", view)
	return nil
}

// signOutEverywhere ends all sessions of whoever asks, this one too.
func (s *server) signOutEverywhere(w http.ResponseWriter, r *http.Request, v visitor) error {
	if _, err := s.Access.EndSessionsOf(r.Context(), v.Actor(), v.User); err != nil {
		return err
	}
	http.SetCookie(w, s.cookie(http.Cookie{MaxAge: -1}))
	http.Redirect(w, r, "/login", http.StatusSeeOther)
	return nil
}
