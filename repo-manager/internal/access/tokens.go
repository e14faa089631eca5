package access

import (
	"context"
	"fmt"
	"slices"
	"time"

	"aptfleet/repo-manager/internal/release"
)

// Tokens lists all tokens, without their secrets, by ID.
func (s *Service) Tokens(ctx context.Context) ([]Token, error) {
	all, err := s.store.Tokens(ctx)
	for i := range all {
		all[i].Used = s.use.last(s.use.tokens, all[i].ID, all[i].Used)
	}
	return all, err
}

// NewToken is what a token is to be.
type NewToken struct {
	User    string
	Label   string   // "" is the name of the user
	Roles   []string // some of the user's; none: all that it has now
	Expires string   // "90d", a time as in RFC 3339, or "never"; "" is TokenLife from now on
}

// CreateToken makes a token for a user. Its Secret is in this answer and
// nowhere else.
func (s *Service) CreateToken(ctx context.Context, a release.Actor, in NewToken) (Token, error) {
	verb := "cannot create token for " + fmt.Sprintf("%q", in.User)
	u, err := s.enabled(ctx, verb, in.User)
	if err != nil {
		return Token{}, err
	}
	t := Token{User: u.Name, Label: in.Label, Roles: slices.Clone(in.Roles), Created: s.now()}
	if len(t.Roles) == 0 {
		t.Roles = slices.Clone(u.Roles)
	}
	if err := checkRoles(verb, t.Roles); err != nil {
		return Token{}, err
	}
	for _, r := range t.Roles {
		if !covers(u.Roles, r) {
			return Token{}, &release.Error{Code: release.Refused, Text: fmt.Sprintf("%s: the user has no role %s", verb, r), Hint: fmt.Sprintf("%s has %v", u.Name, u.Roles)}
		}
	}
	if t.Label == "" {
		t.Label = u.Name
	}
	if !validLabel.MatchString(t.Label) {
		return Token{}, &release.Error{Code: release.Invalid, Text: verb + ": the label is too long or holds control characters"}
	}
	if t.Expires, err = expiry(verb, in.Expires, t.Created); err != nil {
		return Token{}, err
	}
	until := "until it is revoked"
	if !t.Expires.IsZero() {
		until = "until " + t.Expires.Format(time.RFC3339)
	}
	secret := newSecret()
	t, err = s.store.PutToken(ctx, t, HashOf(secret), s.act(a, "create", "token "+t.Label, fmt.Sprintf("for %s %v %s", t.User, t.Roles, until)))
	t.Secret = secret
	return t, err
}

// RevokeToken makes a token worthless at once.
func (s *Service) RevokeToken(ctx context.Context, a release.Actor, id int64) error {
	tokens, err := s.store.Tokens(ctx)
	if err != nil {
		return err
	}
	detail := ""
	for _, t := range tokens {
		if t.ID == id {
			detail = fmt.Sprintf("%s of %s", t.Label, t.User)
		}
	}
	ok, err := s.store.DeleteToken(ctx, id, s.act(a, "revoke", fmt.Sprintf("token %d", id), detail))
	if err == nil && !ok {
		return &release.Error{Code: release.NotFound, Text: fmt.Sprintf("cannot revoke token %d: there is none of that number", id), Hint: "repo-manager token list"}
	}
	return err
}
