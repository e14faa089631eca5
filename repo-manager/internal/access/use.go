package access

import (
	"context"
	"maps"
	"sync"
	"time"
)

// use remembers when tokens and sessions were used last. A request costs no
// write of the database: what is new is written by FlushUse, now and then.
type use struct {
	mu               sync.Mutex
	tokens, sessions map[int64]time.Time // by ID, since the last FlushUse
}

// note says that one of kind was used now.
func (u *use) note(kind map[int64]time.Time, id int64, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now.After(kind[id]) {
		kind[id] = now
	}
}

// last is the last use of one of kind that was stored as used then.
func (u *use) last(kind map[int64]time.Time, id int64, stored time.Time) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now := kind[id]; now.After(stored) {
		return now
	}
	return stored
}

// FlushUse stores when tokens and sessions were used since it was called last.
// If it fails, the next one stores that too.
func (s *Service) FlushUse(ctx context.Context) error {
	u := &s.use
	u.mu.Lock()
	tokens, sessions := maps.Clone(u.tokens), maps.Clone(u.sessions)
	u.mu.Unlock()
	if len(tokens)+len(sessions) == 0 {
		return nil
	}
	if err := s.store.PutUse(ctx, tokens, sessions); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	stored := func(written map[int64]time.Time) func(int64, time.Time) bool {
		return func(id int64, at time.Time) bool { return at.Equal(written[id]) }
	}
	maps.DeleteFunc(u.tokens, stored(tokens))
	maps.DeleteFunc(u.sessions, stored(sessions))
	return nil
}
