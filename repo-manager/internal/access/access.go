// Package access knows who may act: users, their tokens, the sessions of
// their browsers and the one-time links that open them.
//
// A secret is 32 random bytes in URL-safe base64. Only its SHA-256 is kept,
// so the database gives none away. Looking a secret up by its hash takes the
// same time whatever it is.
//
// # Roles
//
//	viewer[:pipeline]               reads
//	uploader[:pipeline[/repo]]      adds and removes packages
//	releaser[:pipeline[/stage]]     names, pins and deletes snapshots, promotes, undoes
//	manufacturing[:pipeline]        registers devices, pins and unpins snapshots
//	operator[:pipeline[/product]]   devices
//	admin                           everything
//
// A role without scope holds everywhere. Whoever has a role is a viewer too,
// of the pipeline that the role is scoped to.
package access

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os/user"
	"regexp"
	"strconv"
	"sync"
	"time"

	"aptfleet/repo-manager/internal/release"
)

// CookieName is the cookie that holds a browser's session.
const CookieName = "aptfleet_session"

// How long links, sessions and tokens are good; tokens if nothing else is said.
const (
	LinkLife    = 24 * time.Hour
	SessionLife = 30 * 24 * time.Hour
	TokenLife   = 365 * 24 * time.Hour
)

// User is a person or a machine with a name.
type User struct {
	Name     string
	Roles    []string
	Created  time.Time
	Disabled time.Time // since then nothing acts in its name; zero: it may
}

// Token lets a program act in the name of a user.
type Token struct {
	ID      int64
	User    string
	Label   string
	Roles   []string
	Created time.Time
	Expires time.Time // zero: never
	Used    time.Time // last use, zero before the first. A crash forgets the last minutes of it
	Secret  string    // only in the answer that made it
}

// Session is a browser that a user signed in.
type Session struct {
	ID      int64
	User    string
	Created time.Time // zero in a database that did not record it yet
	Expires time.Time
	Seen    time.Time // last use, like Token.Used
	From    Origin    // where it was signed in
}

// Origin is where a request came from.
type Origin struct {
	Address string // IP address
	Browser string // as a person calls it, see BrowserName
}

// Identity is who acts, how that is known, and what they may.
type Identity struct {
	User    string
	Roles   []string
	Via     string // "socket", "token:<label>", "session"
	Session int64  // ID of the session, if it is one
}

// Ended is what a change of a user takes from it.
type Ended struct {
	Tokens   int // worth nothing any more, or as long as the user is disabled
	Sessions int
}

// Actor is the identity as it is recorded.
func (id Identity) Actor() release.Actor { return release.Actor{Name: id.User, Via: id.Via} }

// Hash is the SHA-256 of a secret's text.
type Hash = [32]byte

// Store keeps what a Service knows. Finding methods report ok = false for
// what is not there. An Act is recorded together with what it tells about.
type Store interface {
	// PutUser inserts a user; one of that name makes it fail with ErrExists.
	PutUser(ctx context.Context, u User, act release.Act) error
	User(ctx context.Context, name string) (u User, ok bool, err error)
	Users(ctx context.Context) ([]User, error) // by name
	// SetUser replaces the roles of a user and whether it is disabled. The
	// sessions and links of one who is end with it; its tokens are counted.
	SetUser(ctx context.Context, u User, act release.Act) (ended Ended, ok bool, err error)
	// DeleteUser removes a user with its tokens, sessions and links.
	DeleteUser(ctx context.Context, name string, act release.Act) (ended Ended, ok bool, err error)

	// PutToken inserts a token and returns it with its ID. Tokens that expired
	// more than ExpiredKept before it was made are forgotten.
	PutToken(ctx context.Context, t Token, secret Hash, act release.Act) (Token, error)
	TokenBySecret(ctx context.Context, secret Hash) (t Token, ok bool, err error)
	Tokens(ctx context.Context) ([]Token, error) // by ID
	DeleteToken(ctx context.Context, id int64, act release.Act) (ok bool, err error)

	// PutLink inserts a link and forgets those that expired before now.
	PutLink(ctx context.Context, secret Hash, g Grant, now time.Time, act release.Act) error
	Link(ctx context.Context, secret Hash) (g Grant, ok bool, err error)
	// Redeem replaces a link by a session, once, and forgets sessions that
	// expired before now.
	Redeem(ctx context.Context, link, secret Hash, session Session, now time.Time, act release.Act) (ok bool, err error)
	Session(ctx context.Context, secret Hash) (s Session, ok bool, err error)
	Sessions(ctx context.Context) ([]Session, error) // by ID
	// DeleteSessions ends sessions by ID and tells how many there were. The act
	// is recorded if there was any.
	DeleteSessions(ctx context.Context, ids []int64, act release.Act) (int, error)

	// PutUse records when tokens and sessions were used last, by ID, unless a
	// later use is recorded. Those that are gone are left out.
	PutUse(ctx context.Context, tokens, sessions map[int64]time.Time) error
}

// ExpiredKept is how long a token that has expired stays, to be told apart
// from one that never was.
const ExpiredKept = 30 * 24 * time.Hour

// Grant is what a link stands for.
type Grant struct {
	User    string
	Expires time.Time
}

// ErrExists says that a name is taken.
var ErrExists = fmt.Errorf("the name is taken")

// Service answers who may act. Its methods may be called concurrently.
type Service struct {
	store Store
	clock func() time.Time

	people sync.Mutex // held while a user is read and changed
	use    use
}

// New returns a Service on a store.
func New(store Store, clock func() time.Time) *Service {
	return &Service{store: store, clock: clock, use: use{tokens: map[int64]time.Time{}, sessions: map[int64]time.Time{}}}
}

func (s *Service) now() time.Time { return s.clock().UTC().Truncate(time.Microsecond) }

func (s *Service) act(a release.Actor, verb, object, detail string) release.Act {
	return release.Act{At: s.now(), By: a.Name, Via: a.Via, Verb: verb, Object: object, Detail: detail}
}

// newSecret returns 32 random bytes as text. crypto/rand never fails.
func newSecret() string {
	var raw [32]byte
	rand.Read(raw[:])
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// HashOf is what is stored instead of a secret.
func HashOf(secret string) Hash { return sha256.Sum256([]byte(secret)) }

// Peer is the identity of a process on this machine that connected to the
// Unix socket: whoever may open the socket is an admin. A user id without a
// name is called uid:<number>.
func Peer(uid uint32) Identity {
	name := "uid:" + strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		name = u.Username
	}
	return Identity{User: name, Roles: []string{"admin"}, Via: "socket"}
}

// CSRF is the token that a page of this session must send along with what it
// changes.
func CSRF(cookie string) string {
	mac := hmac.New(sha256.New, []byte(cookie))
	mac.Write([]byte("aptfleet csrf"))
	return hex.EncodeToString(mac.Sum(nil))
}

var (
	validUser  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$`)
	validLabel = regexp.MustCompile(`^[^\x00-\x1f\x7f]{1,100}$`)
)
