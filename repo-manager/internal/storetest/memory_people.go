package storetest

import (
	"cmp"
	"context"
	"fmt"
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
	sessions map[access.Hash]access.Grant
}

type storedToken struct {
	access.Token
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

// PutToken implements access.Store.
func (m *Memory) PutToken(_ context.Context, t access.Token, secret access.Hash, act release.Act) (access.Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.hasUser(t.User) {
		return t, fmt.Errorf("no user %s", t.User)
	}
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
func (m *Memory) Redeem(_ context.Context, link, session access.Hash, g access.Grant, now time.Time, act release.Act) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if found, ok := m.people.links[link]; !ok || !found.Expires.After(now) {
		return false, nil
	}
	delete(m.people.links, link)
	m.people.sessions = without(m.people.sessions, now)
	m.people.sessions[session] = g
	m.act(act)
	return true, nil
}

// Session implements access.Store.
func (m *Memory) Session(_ context.Context, secret access.Hash) (access.Grant, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g, ok := m.people.sessions[secret]
	return g, ok, nil
}

// DeleteSession implements access.Store.
func (m *Memory) DeleteSession(_ context.Context, secret access.Hash) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.people.sessions, secret)
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
