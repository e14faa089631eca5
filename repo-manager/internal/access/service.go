package access

import (
	"context"
	"fmt"
	"strings"
	"time"

	"aptfleet/repo-manager/internal/release"
)

// who is the answer to a secret that opens nothing. It does not say why.
func who(what, hint string) error {
	return &release.Error{Code: release.NoAccess, Text: "cannot tell who is asking: " + what, Hint: hint}
}

// over is the answer to a secret that is genuine and opens nothing any more:
// whoever has it may know why.
func over(user, what, hint string) error {
	return &release.Error{Code: release.NoAccess, Text: fmt.Sprintf("cannot act as %s: %s", user, what), Hint: hint}
}

const tokenHint = "an admin makes a token with: repo-manager token create USER --role ROLE"

// ByToken finds who a token's secret belongs to; an unknown one, one that has
// expired, and one of a disabled user are NoAccess. The roles are those of the
// token that its user has now.
func (s *Service) ByToken(ctx context.Context, secret string) (Identity, error) {
	t, ok, err := s.store.TokenBySecret(ctx, HashOf(secret))
	if err != nil {
		return Identity{}, err
	}
	if !ok {
		return Identity{}, who("the token is unknown or was revoked", tokenHint)
	}
	u, err := s.able(ctx, t.User)
	if err != nil {
		return Identity{}, err
	}
	now := s.now()
	if !t.Expires.IsZero() && !now.Before(t.Expires) {
		return Identity{}, over(u.Name, fmt.Sprintf("the token %s expired at %s", t.Label, t.Expires.Format(time.RFC3339)),
			fmt.Sprintf("an admin makes another with: repo-manager token create %s --role %s", u.Name, strings.Join(t.Roles, ",")))
	}
	s.use.note(s.use.tokens, t.ID, now)
	return Identity{User: u.Name, Roles: Common(t.Roles, u.Roles), Via: "token:" + t.Label}, nil
}

// BySession finds who a session's cookie belongs to, and the CSRF token that
// its pages send. The roles are those the user has now.
func (s *Service) BySession(ctx context.Context, cookie string) (id Identity, csrf string, err error) {
	session, ok, err := s.store.Session(ctx, HashOf(cookie))
	if err != nil {
		return Identity{}, "", err
	}
	now := s.now()
	if !ok || !now.Before(session.Expires) {
		return Identity{}, "", who("the session has ended", "open a new link from: repo-manager login-link NAME")
	}
	u, err := s.able(ctx, session.User)
	if err != nil {
		return Identity{}, "", err
	}
	s.use.note(s.use.sessions, session.ID, now)
	return Identity{User: u.Name, Roles: u.Roles, Via: "session", Session: session.ID}, CSRF(cookie), nil
}

// able finds the user of a token or session. One that is gone or disabled is
// NoAccess.
func (s *Service) able(ctx context.Context, name string) (User, error) {
	u, ok, err := s.store.User(ctx, name)
	switch {
	case err != nil:
		return User{}, err
	case !ok:
		return User{}, who("the user is gone", "")
	case !u.Disabled.IsZero():
		return User{}, over(u.Name, "the user is disabled", "an admin lets it act again with: repo-manager user enable "+u.Name)
	}
	return u, nil
}
