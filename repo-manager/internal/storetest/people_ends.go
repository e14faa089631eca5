package storetest

import (
	"testing"
	"time"

	"aptfleet/repo-manager/internal/access"
)

// accessEnds is the part of Access about what begins and ends: links and
// sessions, and what a user takes along.
func accessEnds(t *testing.T, open func(t *testing.T) AccessStore) {
	from := access.Origin{Address: "10.0.0.7", Browser: "Firefox on Linux"}
	t.Run("links and sessions", func(t *testing.T) {
		ctx, s := t.Context(), open(t)
		must(t, s.PutUser(ctx, access.User{Name: "ann", Roles: []string{"admin"}, Created: day}, act("user")))
		link := access.Grant{User: "ann", Expires: day.Add(time.Hour)}
		later := day.Add(time.Minute)
		session := access.Session{User: "ann", Created: later, Expires: day.Add(2 * time.Hour), From: from}
		must(t, s.PutLink(ctx, access.Hash{1}, link, day, act("link")))
		must(t, s.PutLink(ctx, access.Hash{2}, access.Grant{User: "ann", Expires: day.Add(time.Second)}, day, act("link")))
		g, ok, err := s.Link(ctx, access.Hash{1})
		must(t, err)
		same(t, "link", g, link)
		same(t, "link is there", ok, true)
		same(t, "redeem expired", must1(s.Redeem(ctx, access.Hash{2}, access.Hash{8}, session, later, act("log in"))), false)
		same(t, "redeem", must1(s.Redeem(ctx, access.Hash{1}, access.Hash{9}, session, later, act("log in"))), true)
		same(t, "redeem twice", must1(s.Redeem(ctx, access.Hash{1}, access.Hash{8}, session, later, act("log in"))), false)
		found, ok, err := s.Session(ctx, access.Hash{9})
		must(t, err)
		session.ID = found.ID
		same(t, "session", found, session)
		same(t, "session is there", ok, true)
		_, ok, err = s.Session(ctx, access.Hash{8})
		must(t, err)
		same(t, "session of a refused link", ok, false)
		same(t, "sessions", must1(s.Sessions(ctx)), []access.Session{session})
		before := len(must1(s.Acts(ctx, "", 0)))
		same(t, "end", must1(s.DeleteSessions(ctx, []int64{found.ID, found.ID + 7}, act("end"))), 1)
		same(t, "end twice", must1(s.DeleteSessions(ctx, []int64{found.ID}, act("end"))), 0)
		same(t, "acts of both", len(must1(s.Acts(ctx, "", 0)))-before, 1)
		_, ok, err = s.Session(ctx, access.Hash{9})
		must(t, err)
		same(t, "session after its end", ok, false)

		must(t, s.PutLink(ctx, access.Hash{3}, access.Grant{User: "ann", Expires: day.Add(4 * time.Hour)}, later, act("link")))
		must1(s.Redeem(ctx, access.Hash{3}, access.Hash{8}, session, later, act("log in")))
		first := must1(s.Sessions(ctx))[0]
		if first.ID <= found.ID {
			t.Errorf("the id %d of a session that ended came back as %d", found.ID, first.ID)
		}
		muchLater := day.Add(3 * time.Hour)
		must(t, s.PutLink(ctx, access.Hash{4}, access.Grant{User: "ann", Expires: day.Add(4 * time.Hour)}, later, act("link")))
		must1(s.Redeem(ctx, access.Hash{4}, access.Hash{7}, access.Session{User: "ann", Created: muchLater, Expires: day.Add(9 * time.Hour)}, muchLater, act("log in")))
		left := must1(s.Sessions(ctx))
		if len(left) != 1 || left[0].Created != muchLater {
			t.Errorf("an expired session is still there: %+v", left)
		}
	})
	t.Run("expired tokens", func(t *testing.T) {
		ctx, s := t.Context(), open(t)
		must(t, s.PutUser(ctx, access.User{Name: "ci", Roles: []string{"viewer"}, Created: day}, act("user")))
		put := func(created time.Time, expires time.Time, secret byte) access.Token {
			return must1(s.PutToken(ctx, access.Token{User: "ci", Label: "l", Roles: []string{"viewer"}, Created: created, Expires: expires}, access.Hash{secret}, act("token")))
		}
		forever := put(day, time.Time{}, 1)
		put(day, day.Add(time.Hour), 2)
		then := day.Add(time.Hour + access.ExpiredKept)
		kept := put(day, day.Add(2*time.Hour), 3)
		same(t, "nothing is forgotten early", len(must1(s.Tokens(ctx))), 3)
		last := put(then.Add(time.Minute), then.Add(time.Hour), 4)
		same(t, "tokens", must1(s.Tokens(ctx)), []access.Token{forever, kept, last})
	})
	t.Run("users that change", func(t *testing.T) {
		ctx, s := t.Context(), open(t)
		signedIn := func(name string, secret byte) {
			must(t, s.PutLink(ctx, access.Hash{secret}, access.Grant{User: name, Expires: day.Add(time.Hour)}, day, act("link")))
			must1(s.Redeem(ctx, access.Hash{secret}, access.Hash{secret, secret}, access.Session{User: name, Created: day, Expires: day.Add(time.Hour)}, day, act("log in")))
		}
		for i, name := range []string{"ann", "bob"} {
			must(t, s.PutUser(ctx, access.User{Name: name, Roles: []string{"admin"}, Created: day}, act("user "+name)))
			must1(s.PutToken(ctx, access.Token{User: name, Label: "l", Roles: []string{"admin"}, Created: day}, access.Hash{byte(100 + i)}, act("token")))
			signedIn(name, byte(1+i))
			must(t, s.PutLink(ctx, access.Hash{byte(50 + i)}, access.Grant{User: name, Expires: day.Add(time.Hour)}, day, act("link")))
		}
		ann := access.User{Name: "ann", Roles: []string{"viewer:demo"}, Created: day}
		ended, ok, err := s.SetUser(ctx, ann, act("roles"))
		must(t, err)
		same(t, "fewer roles", ended, access.Ended{})
		same(t, "ann is there", ok, true)
		found, _, err := s.User(ctx, "ann")
		must(t, err)
		same(t, "ann", found, ann)
		same(t, "sessions", len(must1(s.Sessions(ctx))), 2)

		ann.Disabled = day.Add(time.Minute)
		ended, _, err = s.SetUser(ctx, ann, act("disable"))
		must(t, err)
		same(t, "disabled", ended, access.Ended{Tokens: 1, Sessions: 1})
		found, _, err = s.User(ctx, "ann")
		must(t, err)
		same(t, "ann", found, ann)
		same(t, "sessions", must1(s.Sessions(ctx))[0].User, "bob")
		same(t, "tokens", len(must1(s.Tokens(ctx))), 2)
		_, ok, err = s.Link(ctx, access.Hash{50})
		must(t, err)
		same(t, "link of a disabled user", ok, false)
		ann.Disabled = time.Time{}
		_, _, err = s.SetUser(ctx, ann, act("enable"))
		must(t, err)
		found, _, err = s.User(ctx, "ann")
		must(t, err)
		same(t, "ann", found, ann)

		signedIn("ann", 9)
		ended, ok, err = s.DeleteUser(ctx, "ann", act("delete"))
		must(t, err)
		same(t, "deleted", ended, access.Ended{Tokens: 1, Sessions: 1})
		same(t, "ann was there", ok, true)
		same(t, "users", len(must1(s.Users(ctx))), 1)
		same(t, "tokens", must1(s.Tokens(ctx))[0].User, "bob")
		same(t, "sessions", must1(s.Sessions(ctx))[0].User, "bob")
		_, ok, err = s.Link(ctx, access.Hash{51})
		must(t, err)
		same(t, "link of bob", ok, true)

		before := len(must1(s.Acts(ctx, "", 0)))
		_, ok, err = s.DeleteUser(ctx, "ann", act("delete"))
		must(t, err)
		same(t, "deleted twice", ok, false)
		_, ok, err = s.SetUser(ctx, ann, act("change"))
		must(t, err)
		same(t, "changed after deletion", ok, false)
		same(t, "acts of nothing", len(must1(s.Acts(ctx, "", 0))), before)
	})
	t.Run("use", func(t *testing.T) {
		ctx, s := t.Context(), open(t)
		must(t, s.PutUser(ctx, access.User{Name: "ci", Roles: []string{"viewer"}, Created: day}, act("user")))
		one := must1(s.PutToken(ctx, access.Token{User: "ci", Label: "a", Created: day}, access.Hash{1}, act("token")))
		two := must1(s.PutToken(ctx, access.Token{User: "ci", Label: "b", Created: day}, access.Hash{2}, act("token")))
		must(t, s.PutLink(ctx, access.Hash{3}, access.Grant{User: "ci", Expires: day.Add(time.Hour)}, day, act("link")))
		must1(s.Redeem(ctx, access.Hash{3}, access.Hash{4}, access.Session{User: "ci", Created: day, Expires: day.Add(time.Hour)}, day, act("log in")))
		session := must1(s.Sessions(ctx))[0]
		before := len(must1(s.Acts(ctx, "", 0)))
		at := day.Add(time.Minute)
		must(t, s.PutUse(ctx, map[int64]time.Time{one.ID: at, 1000: at}, map[int64]time.Time{session.ID: at, 1000: at}))
		must(t, s.PutUse(ctx, map[int64]time.Time{one.ID: day}, map[int64]time.Time{session.ID: day}))
		one.Used, session.Seen = at, at
		same(t, "tokens", must1(s.Tokens(ctx)), []access.Token{one, two})
		same(t, "sessions", must1(s.Sessions(ctx)), []access.Session{session})
		same(t, "acts", len(must1(s.Acts(ctx, "", 0))), before)
	})
}
