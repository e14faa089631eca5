package access

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"aptfleet/repo-manager/internal/release"
)

// CreateLoginLink makes the secret of a link that opens one session of a user
// in a browser, within LinkLife.
func (s *Service) CreateLoginLink(ctx context.Context, a release.Actor, user string) (secret string, expires time.Time, err error) {
	s.people.Lock() // a user that is disabled meanwhile must get none
	defer s.people.Unlock()
	if _, err := s.enabled(ctx, "cannot create login link", user); err != nil {
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
func (s *Service) Redeem(ctx context.Context, secret string, from Origin) (cookie string, expires time.Time, err error) {
	user, err := s.LinkUser(ctx, secret)
	if err != nil {
		return "", time.Time{}, err
	}
	cookie = newSecret()
	now := s.now()
	session := Session{User: user, Created: now, Expires: now.Add(SessionLife), From: from}
	ok, err := s.store.Redeem(ctx, HashOf(secret), HashOf(cookie), session, now, s.act(release.Actor{Name: user, Via: "link"}, "log in", "session", from.String()))
	if err != nil {
		return "", time.Time{}, err
	}
	if !ok {
		return "", time.Time{}, errLink()
	}
	return cookie, session.Expires, nil
}

func errLink() error {
	return who("the link was used before, has expired or never was", "ask for a new one: repo-manager login-link NAME")
}

// Sessions lists the sessions that have not ended, by ID.
func (s *Service) Sessions(ctx context.Context) ([]Session, error) {
	all, err := s.store.Sessions(ctx)
	now := s.now()
	all = slices.DeleteFunc(all, func(session Session) bool { return !now.Before(session.Expires) })
	for i := range all {
		all[i].Seen = s.use.last(s.use.sessions, all[i].ID, all[i].Seen)
	}
	return all, err
}

// SessionsOf lists the sessions of one user.
func (s *Service) SessionsOf(ctx context.Context, user string) ([]Session, error) {
	all, err := s.Sessions(ctx)
	return slices.DeleteFunc(all, func(session Session) bool { return session.User != user }), err
}

// EndSession forgets the session of a cookie; an unknown one is fine.
func (s *Service) EndSession(ctx context.Context, cookie string) error {
	session, ok, err := s.store.Session(ctx, HashOf(cookie))
	if err != nil || !ok {
		return err
	}
	a := release.Actor{Name: session.User, Via: "session"}
	_, err = s.store.DeleteSessions(ctx, []int64{session.ID}, s.act(a, "log out", "session", ""))
	return err
}

// EndSessionByID ends one session.
func (s *Service) EndSessionByID(ctx context.Context, a release.Actor, id int64) error {
	sessions, err := s.Sessions(ctx)
	if err != nil {
		return err
	}
	detail := ""
	for _, session := range sessions {
		if session.ID == id {
			detail = fmt.Sprintf("of %s, %s", session.User, session.From)
		}
	}
	n, err := s.store.DeleteSessions(ctx, []int64{id}, s.act(a, "end", fmt.Sprintf("session %d", id), detail))
	if err == nil && n == 0 {
		return &release.Error{Code: release.NotFound, Text: fmt.Sprintf("cannot end session %d: there is none of that number", id), Hint: "repo-manager session list"}
	}
	return err
}

// EndSessionsOf ends all sessions of a user and tells how many there were.
func (s *Service) EndSessionsOf(ctx context.Context, a release.Actor, user string) (int, error) {
	if _, err := s.user(ctx, "cannot end sessions", user); err != nil {
		return 0, err
	}
	sessions, err := s.SessionsOf(ctx, user)
	if err != nil {
		return 0, err
	}
	ids := make([]int64, len(sessions))
	for i, session := range sessions {
		ids[i] = session.ID
	}
	return s.store.DeleteSessions(ctx, ids, s.act(a, "end", "sessions of "+user, fmt.Sprintf("%d of them", len(ids))))
}

// String is the origin as it is shown: "10.0.0.7, Firefox on Linux".
func (o Origin) String() string {
	return strings.Trim(o.Address+", "+o.Browser, ", ")
}

// A User-Agent that BrowserName does not know is cut to so many characters.
const maxBrowser = 40

// BrowserName is what a person calls the program that sent a User-Agent
// header: "Firefox on Linux". Programs pretend to be each other, so the order
// of what is looked for matters, and the result proves nothing.
func BrowserName(userAgent string) string {
	find := func(known ...[2]string) string {
		for _, k := range known {
			if strings.Contains(userAgent, k[0]) {
				return k[1]
			}
		}
		return ""
	}
	name := find([2]string{"Edg", "Edge"}, [2]string{"OPR/", "Opera"}, [2]string{"Firefox/", "Firefox"},
		[2]string{"Chrome/", "Chrome"}, [2]string{"Safari/", "Safari"})
	if name == "" {
		short := []rune(strings.ToValidUTF8(userAgent, ""))
		return string(short[:min(len(short), maxBrowser)])
	}
	system := find([2]string{"Android", "Android"}, [2]string{"iPhone", "iPhone"}, [2]string{"iPad", "iPad"},
		[2]string{"Windows", "Windows"}, [2]string{"Mac OS X", "macOS"}, [2]string{"CrOS", "ChromeOS"}, [2]string{"Linux", "Linux"})
	if system != "" {
		name += " on " + system
	}
	return name
}
