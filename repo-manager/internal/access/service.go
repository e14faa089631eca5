package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"aptfleet/repo-manager/internal/release"
)

// who is the answer to a secret that opens nothing. It does not say why.
func who(what, hint string) error {
	return &release.Error{Code: release.NoAccess, Text: "cannot tell who is asking: " + what, Hint: hint}
}

const tokenHint = "an admin makes a token with: repo-manager token create USER --role ROLE"

// ByToken finds who a token's secret belongs to; an unknown one is NoAccess.
// The roles are those of the token that its user has now.
func (s *Service) ByToken(ctx context.Context, secret string) (Identity, error) {
	t, ok, err := s.store.TokenBySecret(ctx, HashOf(secret))
	if err != nil {
		return Identity{}, err
	}
	if !ok {
		return Identity{}, who("the token is unknown or was revoked", tokenHint)
	}
	u, ok, err := s.store.User(ctx, t.User)
	if err != nil || !ok {
		return Identity{}, errors.Join(err, who("the user is gone", ""))
	}
	return Identity{User: u.Name, Roles: Common(t.Roles, u.Roles), Via: "token:" + t.Label}, nil
}

// BySession finds who a session's cookie belongs to, and the CSRF token that
// its pages send. The roles are those the user has now.
func (s *Service) BySession(ctx context.Context, cookie string) (id Identity, csrf string, err error) {
	g, ok, err := s.store.Session(ctx, HashOf(cookie))
	if err != nil {
		return Identity{}, "", err
	}
	if !ok || !s.now().Before(g.Expires) {
		return Identity{}, "", who("the session has ended", "open a new link from: repo-manager login-link NAME")
	}
	u, ok, err := s.store.User(ctx, g.User)
	if err != nil || !ok {
		return Identity{}, "", errors.Join(err, who("the user is gone", ""))
	}
	return Identity{User: u.Name, Roles: u.Roles, Via: "session"}, CSRF(cookie), nil
}

// Users lists all users by name.
func (s *Service) Users(ctx context.Context) ([]User, error) { return s.store.Users(ctx) }

// CreateUser adds a user. A taken name is a Conflict.
func (s *Service) CreateUser(ctx context.Context, a release.Actor, name string, roles []string) (User, error) {
	verb := fmt.Sprintf("cannot create user %q", name)
	if !validUser.MatchString(name) {
		return User{}, &release.Error{Code: release.Invalid, Text: verb + ": a name is a letter or digit, then those and . _ @ + -, at most 64"}
	}
	if err := checkRoles(verb, roles); err != nil {
		return User{}, err
	}
	u := User{Name: name, Roles: slices.Clone(roles), Created: s.now()}
	err := s.store.PutUser(ctx, u, s.act(a, "create", "user "+name, fmt.Sprint(roles)))
	if errors.Is(err, ErrExists) {
		return User{}, &release.Error{Code: release.Conflict, Text: verb + ": the name is taken", Err: err}
	}
	return u, err
}

// Tokens lists all tokens, without their secrets, by ID.
func (s *Service) Tokens(ctx context.Context) ([]Token, error) { return s.store.Tokens(ctx) }

// CreateToken makes a token for a user with some of the user's roles, or all
// of them if roles is empty. Its Secret is in this answer and nowhere else.
func (s *Service) CreateToken(ctx context.Context, a release.Actor, user, label string, roles []string) (Token, error) {
	verb := "cannot create token for " + fmt.Sprintf("%q", user)
	u, err := s.user(ctx, verb, user)
	if err != nil {
		return Token{}, err
	}
	if len(roles) == 0 {
		roles = u.Roles
	}
	if err := checkRoles(verb, roles); err != nil {
		return Token{}, err
	}
	for _, r := range roles {
		if !covers(u.Roles, r) {
			return Token{}, &release.Error{Code: release.Refused, Text: fmt.Sprintf("%s: the user has no role %s", verb, r), Hint: fmt.Sprintf("%s has %v", user, u.Roles)}
		}
	}
	if label == "" {
		label = user
	}
	if !validLabel.MatchString(label) {
		return Token{}, &release.Error{Code: release.Invalid, Text: verb + ": the label is too long or holds control characters"}
	}
	secret := newSecret()
	t, err := s.store.PutToken(ctx, Token{User: user, Label: label, Roles: slices.Clone(roles), Created: s.now()}, HashOf(secret),
		s.act(a, "create", "token "+label, fmt.Sprintf("for %s %v", user, roles)))
	t.Secret = secret
	return t, err
}

// RevokeToken makes a token worthless at once.
func (s *Service) RevokeToken(ctx context.Context, a release.Actor, id int64) error {
	ok, err := s.store.DeleteToken(ctx, id, s.act(a, "revoke", fmt.Sprintf("token %d", id), ""))
	if err == nil && !ok {
		return &release.Error{Code: release.NotFound, Text: fmt.Sprintf("cannot revoke token %d: there is none of that number", id), Hint: "repo-manager token list"}
	}
	return err
}

// CreateLoginLink makes the secret of a link that opens one session of a user
// in a browser, within LinkLife.
func (s *Service) CreateLoginLink(ctx context.Context, a release.Actor, user string) (secret string, expires time.Time, err error) {
	if _, err := s.user(ctx, "cannot create login link", user); err != nil {
		return "", time.Time{}, err
	}
	secret = newSecret()
	now := s.now()
	g := Grant{User: user, Expires: now.Add(LinkLife)}
	err = s.store.PutLink(ctx, HashOf(secret), g, now, s.act(a, "create", "login link", "for "+user))
	return secret, g.Expires, err
}

// LinkUser tells whom a link is for without using it up.
func (s *Service) LinkUser(ctx context.Context, secret string) (user string, err error) {
	g, ok, err := s.store.Link(ctx, HashOf(secret))
	if err != nil {
		return "", err
	}
	if !ok || !s.now().Before(g.Expires) {
		return "", errLink()
	}
	return g.User, nil
}

// Redeem uses a link up and opens a session: cookie is its secret. A link that
// was used, has expired or never was is NoAccess.
func (s *Service) Redeem(ctx context.Context, secret string) (cookie string, expires time.Time, err error) {
	user, err := s.LinkUser(ctx, secret)
	if err != nil {
		return "", time.Time{}, err
	}
	cookie = newSecret()
	now := s.now()
	g := Grant{User: user, Expires: now.Add(SessionLife)}
	ok, err := s.store.Redeem(ctx, HashOf(secret), HashOf(cookie), g, now, s.act(release.Actor{Name: user, Via: "link"}, "log in", "session", ""))
	if err != nil {
		return "", time.Time{}, err
	}
	if !ok {
		return "", time.Time{}, errLink()
	}
	return cookie, g.Expires, nil
}

func errLink() error {
	return who("the link was used before, has expired or never was", "ask for a new one: repo-manager login-link NAME")
}

// EndSession forgets a session; an unknown one is fine.
func (s *Service) EndSession(ctx context.Context, cookie string) error {
	return s.store.DeleteSession(ctx, HashOf(cookie))
}

func (s *Service) user(ctx context.Context, verb, name string) (User, error) {
	u, ok, err := s.store.User(ctx, name)
	if err == nil && !ok {
		return User{}, &release.Error{Code: release.NotFound, Text: fmt.Sprintf("%s: there is no user %q", verb, name), Hint: "repo-manager user create " + name + " --role ROLE"}
	}
	return u, err
}
