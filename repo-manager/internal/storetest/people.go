package storetest

import (
	"errors"
	"testing"

	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
)

// AccessStore is a store of people whose audit trail can be read.
type AccessStore interface {
	access.Store
	release.Store
}

func act(object string) release.Act {
	return release.Act{At: day, By: "root", Via: "socket", Verb: "create", Object: object}
}

// Access runs the suite of access.Store. open returns an empty store.
func Access(t *testing.T, open func(t *testing.T) AccessStore) {
	t.Run("users", func(t *testing.T) {
		ctx, s := t.Context(), open(t)
		bob := access.User{Name: "bob", Roles: []string{"viewer"}, Created: day}
		ann := access.User{Name: "ann", Roles: []string{"releaser:demo", "operator"}, Created: day}
		must(t, s.PutUser(ctx, bob, act("user bob")))
		must(t, s.PutUser(ctx, ann, act("user ann")))
		if err := s.PutUser(ctx, ann, act("again")); !errors.Is(err, access.ErrExists) {
			t.Errorf("a second user ann: %v, want ErrExists", err)
		}
		same(t, "users", must1(s.Users(ctx)), []access.User{ann, bob})
		found, ok, err := s.User(ctx, "ann")
		must(t, err)
		same(t, "ann", found, ann)
		same(t, "ann is there", ok, true)
		_, ok, err = s.User(ctx, "eve")
		must(t, err)
		same(t, "eve is there", ok, false)
		same(t, "acts", must1(s.Acts(ctx, "", 0)), []release.Act{act("user ann"), act("user bob")})
	})
	t.Run("tokens", func(t *testing.T) {
		ctx, s := t.Context(), open(t)
		must(t, s.PutUser(ctx, access.User{Name: "ci", Roles: []string{"uploader"}, Created: day}, act("user")))
		one := must1(s.PutToken(ctx, access.Token{User: "ci", Label: "build", Roles: []string{"uploader:demo/apps"}, Created: day}, access.Hash{1}, act("token")))
		two := must1(s.PutToken(ctx, access.Token{User: "ci", Label: "other", Roles: []string{"uploader"}, Created: day}, access.Hash{2}, act("token")))
		if _, err := s.PutToken(ctx, access.Token{User: "eve", Label: "x", Created: day}, access.Hash{3}, act("token")); err == nil {
			t.Error("a token of a user who does not exist was stored")
		}
		same(t, "tokens", must1(s.Tokens(ctx)), []access.Token{one, two})
		found, ok, err := s.TokenBySecret(ctx, access.Hash{2})
		must(t, err)
		same(t, "found", ok, true)
		same(t, "token", found, two)
		same(t, "deleted", must1(s.DeleteToken(ctx, two.ID, act("revoke"))), true)
		same(t, "deleted twice", must1(s.DeleteToken(ctx, two.ID, act("revoke"))), false)
		_, ok, err = s.TokenBySecret(ctx, access.Hash{2})
		must(t, err)
		same(t, "found after deletion", ok, false)
		three := must1(s.PutToken(ctx, access.Token{User: "ci", Label: "new", Roles: []string{"uploader"}, Created: day}, access.Hash{4}, act("token")))
		if three.ID <= two.ID {
			t.Errorf("the id %d of a revoked token came back as %d", two.ID, three.ID)
		}
		same(t, "acts", len(must1(s.Acts(ctx, "", 0))), 5)
	})
	accessEnds(t, open)
}
