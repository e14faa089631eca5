package storetest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
)

type people struct {
	users    []access.User
	tokens   []storedToken
	lastID   int64
	links    map[access.Hash]access.Grant
	sessions []storedSession
	session  int64 // the last ID
}

type storedToken struct {
	access.Token
	secret access.Hash
}

type storedSession struct {
	access.Session
	secret access.Hash
}

func (m *Memory) act(act release.Act) { m.releases.acts = append(m.releases.acts, act) }

func (m *Memory) hasUser(name string) bool {
	return slices.ContainsFunc(m.people.users, func(u access.User) bool { return u.Name == name })
}

// PutUser implements access.Store.
func (m *Memory) PutUser(_ context.Context, u access.User, act release.Act) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.hasUser(u.Name) {
		return access.ErrExists
	}
	m.people.users = append(m.people.users, u)
	m.act(act)
	return nil
}

// User implements access.Store.
func (m *Memory) User(_ context.Context, name string) (access.User, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range m.people.users {
		if u.Name == name {
			return u, true, nil
		}
	}
	return access.User{}, false, nil
}

// Users implements access.Store.
func (m *Memory) Users(context.Context) ([]access.User, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := slices.Clone(m.people.users)
	slices.SortFunc(list, func(a, b access.User) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// SetUser implements access.Store.
func (m *Memory) SetUser(_ context.Context, u access.User, act release.Act) (ended access.Ended, ok bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.people.users {
		if m.people.users[i].Name != u.Name {
			continue
		}
		m.people.users[i].Roles, m.people.users[i].Disabled = u.Roles, u.Disabled
		if !u.Disabled.IsZero() {
			ended.Sessions = m.signOut(u.Name)
			for _, t := range m.people.tokens {
				if t.User == u.Name {
					ended.Tokens++
				}
			}
		}
		m.act(act)
		return ended, true, nil
	}
	return ended, false, nil
}

// DeleteUser implements access.Store.
func (m *Memory) DeleteUser(_ context.Context, name string, act release.Act) (ended access.Ended, ok bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.hasUser(name) {
		return ended, false, nil
	}
	m.people.users = slices.DeleteFunc(m.people.users, func(u access.User) bool { return u.Name == name })
	before := len(m.people.tokens)
	m.people.tokens = slices.DeleteFunc(m.people.tokens, func(t storedToken) bool { return t.User == name })
	ended.Tokens = before - len(m.people.tokens)
	ended.Sessions = m.signOut(name)
	m.act(act)
	return ended, true, nil
}

// signOut ends the sessions and links of a user and counts the former.
func (m *Memory) signOut(name string) (sessions int) {
	maps.DeleteFunc(m.people.links, func(_ access.Hash, g access.Grant) bool { return g.User == name })
	before := len(m.people.sessions)
	m.people.sessions = slices.DeleteFunc(m.people.sessions, func(s storedSession) bool { return s.User == name })
	return before - len(m.people.sessions)
}

// PutToken implements access.Store.
func (m *Memory) PutToken(_ context.Context, t access.Token, secret access.Hash, act release.Act) (access.Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.hasUser(t.User) {
		return t, fmt.Errorf("no user %s", t.User)
	}
	forgotten := t.Created.Add(-access.ExpiredKept)
	m.people.tokens = slices.DeleteFunc(m.people.tokens, func(t storedToken) bool { return !t.Expires.IsZero() && t.Expires.Before(forgotten) })
	m.people.lastID++
	t.ID = m.people.lastID
	m.people.tokens = append(m.people.tokens, storedToken{t, secret})
	m.act(act)
	return t, nil
}

// TokenBySecret implements access.Store.
func (m *Memory) TokenBySecret(_ context.Context, secret access.Hash) (access.Token, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.people.tokens {
		if t.secret == secret {
			return t.Token, true, nil
		}
	}
	return access.Token{}, false, nil
}

// Tokens implements access.Store.
func (m *Memory) Tokens(context.Context) ([]access.Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []access.Token
	for _, t := range m.people.tokens {
		list = append(list, t.Token)
	}
	return list, nil
}

// DeleteToken implements access.Store.
func (m *Memory) DeleteToken(_ context.Context, id int64, act release.Act) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := len(m.people.tokens)
	m.people.tokens = slices.DeleteFunc(m.people.tokens, func(t storedToken) bool { return t.ID == id })
	if len(m.people.tokens) == before {
		return false, nil
	}
	m.act(act)
	return true, nil
}

// PutLink implements access.Store.
func (m *Memory) PutLink(_ context.Context, secret access.Hash, g access.Grant, now time.Time, act release.Act) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.hasUser(g.User) {
		return fmt.Errorf("no user %s", g.User)
	}
	m.people.links = without(m.people.links, now)
	m.people.links[secret] = g
	m.act(act)
	return nil
}

// Link implements access.Store.
func (m *Memory) Link(_ context.Context, secret access.Hash) (access.Grant, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g, ok := m.people.links[secret]
	return g, ok, nil
}

// Redeem implements access.Store.
func (m *Memory) Redeem(_ context.Context, link, secret access.Hash, session access.Session, now time.Time, act release.Act) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if found, ok := m.people.links[link]; !ok || !found.Expires.After(now) {
		return false, nil
	}
	delete(m.people.links, link)
	m.people.sessions = slices.DeleteFunc(m.people.sessions, func(s storedSession) bool { return s.Expires.Before(now) })
	m.people.session++
	session.ID = m.people.session
	m.people.sessions = append(m.people.sessions, storedSession{session, secret})
	m.act(act)
	return true, nil
}

// Session implements access.Store.
func (m *Memory) Session(_ context.Context, secret access.Hash) (access.Session, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.people.sessions {
		if s.secret == secret {
			return s.Session, true, nil
		}
	}
	return access.Session{}, false, nil
}

// Sessions implements access.Store.
func (m *Memory) Sessions(context.Context) ([]access.Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []access.Session
	for _, s := range m.people.sessions {
		list = append(list, s.Session)
	}
	return list, nil
}

// DeleteSessions implements access.Store.
func (m *Memory) DeleteSessions(_ context.Context, ids []int64, act release.Act) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := len(m.people.sessions)
	m.people.sessions = slices.DeleteFunc(m.people.sessions, func(s storedSession) bool { return slices.Contains(ids, s.ID) })
	n := before - len(m.people.sessions)
	if n > 0 {
		m.act(act)
	}
	return n, nil
}

// PutUse implements access.Store.
func (m *Memory) PutUse(_ context.Context, tokens, sessions map[int64]time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, t := range m.people.tokens {
		if at, ok := tokens[t.ID]; ok && at.After(t.Used) {
			m.people.tokens[i].Used = at
		}
	}
	for i, s := range m.people.sessions {
		if at, ok := sessions[s.ID]; ok && at.After(s.Seen) {
			m.people.sessions[i].Seen = at
		}
	}
	return nil
}

// without returns the grants that have not expired, in a map of their own.
func without(grants map[access.Hash]access.Grant, now time.Time) map[access.Hash]access.Grant {
	left := make(map[access.Hash]access.Grant, len(grants))
	for secret, g := range grants {
		if !g.Expires.Before(now) {
			left[secret] = g
		}
	}
	return left
}
