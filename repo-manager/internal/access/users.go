package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"aptfleet/repo-manager/internal/release"
)

// Users lists all users by name.
func (s *Service) Users(ctx context.Context) ([]User, error) { return s.store.Users(ctx) }

// User returns one user.
func (s *Service) User(ctx context.Context, name string) (User, error) {
	return s.user(ctx, "cannot find user", name)
}

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

// UserChange is what SetUser changes of a user.
type UserChange struct {
	Roles    []string // nil: those it has
	Disabled *bool    // nil: as it is
}

// Outcome is what a change of a user led to.
type Outcome struct {
	User    User
	Ended   Ended
	NoAdmin bool // it was the last user that is an admin. Whoever may open the Unix socket still is
}

// SetUser changes a user. Tokens and sessions have what the user has from then
// on; those of a disabled user have nothing: its sessions and links end, and
// its tokens are refused until it is enabled again.
func (s *Service) SetUser(ctx context.Context, a release.Actor, name string, change UserChange) (Outcome, error) {
	s.people.Lock()
	defer s.people.Unlock()
	verb := fmt.Sprintf("cannot change user %q", name)
	before, err := s.user(ctx, verb, name)
	if err != nil {
		return Outcome{}, err
	}
	after, what := before, "change"
	var details []string
	if change.Roles != nil {
		if err := checkRoles(verb, change.Roles); err != nil {
			return Outcome{}, err
		}
		after.Roles = slices.Clone(change.Roles)
		if !slices.Equal(before.Roles, after.Roles) {
			details = append(details, fmt.Sprintf("%v instead of %v", after.Roles, before.Roles))
		}
	}
	if change.Disabled != nil && *change.Disabled == before.Disabled.IsZero() {
		what, after.Disabled = "enable", time.Time{}
		if *change.Disabled {
			what, after.Disabled = "disable", s.now()
		}
	} else if len(details) == 0 {
		return Outcome{User: before}, nil
	}
	ended, ok, err := s.store.SetUser(ctx, after, s.act(a, what, "user "+name, strings.Join(details, ", ")))
	if err == nil && !ok {
		err = noUser(verb, name)
	}
	if err != nil {
		return Outcome{}, err
	}
	return s.outcome(ctx, before, after, ended)
}

// DeleteUser removes a user with its tokens, sessions and links. dryRun only
// tells what would end.
func (s *Service) DeleteUser(ctx context.Context, a release.Actor, name string, dryRun bool) (Outcome, error) {
	s.people.Lock()
	defer s.people.Unlock()
	verb := fmt.Sprintf("cannot delete user %q", name)
	before, err := s.user(ctx, verb, name)
	if err != nil {
		return Outcome{}, err
	}
	var ended Ended
	if dryRun {
		if ended, err = s.has(ctx, name); err != nil {
			return Outcome{}, err
		}
	} else {
		var ok bool
		ended, ok, err = s.store.DeleteUser(ctx, name, s.act(a, "delete", "user "+name, fmt.Sprintf("which was %v", before.Roles)))
		if err == nil && !ok {
			err = noUser(verb, name)
		}
		if err != nil {
			return Outcome{}, err
		}
	}
	return s.outcome(ctx, before, User{Name: name}, ended)
}

// has counts the tokens and sessions of a user.
func (s *Service) has(ctx context.Context, name string) (Ended, error) {
	var has Ended
	tokens, err := s.store.Tokens(ctx)
	if err != nil {
		return has, err
	}
	for _, t := range tokens {
		if t.User == name {
			has.Tokens++
		}
	}
	sessions, err := s.SessionsOf(ctx, name)
	has.Sessions = len(sessions)
	return has, err
}

// outcome also looks whether an admin is left once after took the place of
// before.
func (s *Service) outcome(ctx context.Context, before, after User, ended Ended) (Outcome, error) {
	out := Outcome{User: after, Ended: ended}
	if len(after.Roles) == 0 {
		out.User = before // it is gone, or would be
	}
	if !isAdmin(before) || isAdmin(after) {
		return out, nil
	}
	users, err := s.store.Users(ctx)
	out.NoAdmin = !slices.ContainsFunc(users, func(u User) bool { return u.Name != before.Name && isAdmin(u) })
	return out, err
}

func isAdmin(u User) bool { return u.Disabled.IsZero() && Allows(u.Roles, "admin", "") }

func (s *Service) user(ctx context.Context, verb, name string) (User, error) {
	u, ok, err := s.store.User(ctx, name)
	if err == nil && !ok {
		err = noUser(verb, name)
	}
	return u, err
}

// enabled finds a user that is not disabled.
func (s *Service) enabled(ctx context.Context, verb, name string) (User, error) {
	u, err := s.user(ctx, verb, name)
	if err == nil && !u.Disabled.IsZero() {
		err = &release.Error{Code: release.Refused, Text: fmt.Sprintf("%s: the user %s is disabled", verb, name), Hint: "repo-manager user enable " + name}
	}
	return u, err
}

func noUser(verb, name string) error {
	return &release.Error{Code: release.NotFound, Text: fmt.Sprintf("%s: there is no user %q", verb, name), Hint: "repo-manager user list"}
}
