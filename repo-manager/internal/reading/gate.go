package reading

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
)

// Releases is what a gate needs of *release.Engine.
type Releases interface {
	Pipeline(ctx context.Context, name string) (release.Pipeline, error)
	// HasPrivate tells whether any pipeline is private.
	HasPrivate() bool
	// Lists tells whether a state of a pipeline has a package of that name
	// and content; base is where to look first.
	Lists(ctx context.Context, pipeline, base, name string, sha256 [32]byte) (bool, error)
}

// Tokens is what a gate needs of *access.Service.
type Tokens interface {
	ByToken(ctx context.Context, secret string) (access.Identity, error)
}

// Devices knows the read credentials of devices.
type Devices interface {
	// ReadAllowed tells whether user and password are those of a device that
	// may read a pipeline. The user is the device's name. The password is
	//
	//	base64url(HMAC-SHA256(the server's read secret, id of the device's key))
	//
	// without padding, 43 characters: nothing is stored for a device, the
	// device is told it in its assignment, a device with a new key has another,
	// and one that was retired is refused. It is called for every request, also
	// of people: it answers from memory and compares in constant time.
	ReadAllowed(user, password, pipeline string) bool
}

// Config is what a gate is made of; all of it is required.
type Config struct {
	Releases Releases
	Tokens   Tokens
	Devices  Devices
	Clock    func() time.Time
	Log      *slog.Logger
}

// How long something is taken for true that was looked up, and how many such
// things are remembered.
const (
	tokenLife  = 5 * time.Second
	tokensKept = 10_000
	listedLife = 10 * time.Minute
	listedKept = 100_000
)

// Gate lets readers in. Its methods may be called concurrently.
type Gate struct {
	Config
	brake brake

	mu     sync.Mutex
	tokens map[[sha256.Size]byte]known
	listed map[listing]time.Time // until when it is taken for true
}

// known is a token that was good.
type known struct {
	roles []string
	until time.Time
}

// listing says that a pipeline lists a file.
type listing struct {
	pipeline string
	sha256   [sha256.Size]byte
}

// New returns a gate.
func New(config Config) *Gate {
	return &Gate{
		Config: config,
		brake:  brake{clock: config.Clock, wrong: make(map[netip.Prefix]guesses)},
		tokens: make(map[[sha256.Size]byte]known), listed: make(map[listing]time.Time),
	}
}

// Refusal is the answer to a reader who is not let in.
type Refusal struct {
	Status int           // of HTTP
	Text   string        // what cannot be done and why
	Hint   string        // the next step, or ""
	Realm  string        // for WWW-Authenticate: credentials are asked for; or ""
	Wait   time.Duration // for Retry-After, or 0
}

// notFound is the answer of an archive that has no such file. That a file is
// in the pool of another pipeline is not told.
func notFound() *Refusal {
	return &Refusal{Status: http.StatusNotFound, Text: "cannot find that file in the archive"}
}

func failed() *Refusal {
	return &Refusal{Status: http.StatusInternalServerError, Text: "cannot find out who may read that file", Hint: "the server's log tells more"}
}

// Enter decides on a path of the published tree, which is clean and relative
// to it. private says that the answer is for this reader alone.
func (g *Gate) Enter(r *http.Request, name string) (private bool, refusal *Refusal) {
	pipeline, _, below := strings.Cut(name, "/")
	if !below || pipeline == "pool" {
		return false, nil // Pooled decides on what is below pool
	}
	p, err := g.Releases.Pipeline(r.Context(), pipeline)
	switch {
	case release.CodeOf(err) == release.NotFound:
		return false, notFound() // a directory without a pipeline is nobody's
	case err != nil:
		g.Log.Error("cannot tell whether a pipeline is private", "pipeline", pipeline, "error", err)
		return true, failed()
	case !p.Private:
		return false, nil
	case !Encrypted(r):
		return true, &Refusal{
			Status: http.StatusForbidden,
			Text:   fmt.Sprintf("cannot read pipeline %s here: it is private, and this connection is not encrypted", pipeline),
			Hint:   "use the server's https:// address; behind a proxy that speaks TLS, name it in the setting proxies",
		}
	}
	return true, g.authenticate(r, pipeline)
}

// authenticate decides on a request to a private pipeline.
func (g *Gate) authenticate(r *http.Request, pipeline string) *Refusal {
	user, secret, ok := credentials(r)
	if !ok {
		return g.ask(r, pipeline, "it is private, and the request has no credentials")
	}
	if g.Devices.ReadAllowed(user, secret, pipeline) {
		return nil
	}
	now, key := g.Clock(), sha256.Sum256([]byte(secret))
	g.mu.Lock()
	t, seen := g.tokens[key]
	g.mu.Unlock()
	if !seen || !now.Before(t.until) {
		if wait := g.brake.wait(Address(r)); !seen && wait > 0 {
			return &Refusal{
				Status: http.StatusTooManyRequests, Wait: wait,
				Text: fmt.Sprintf("cannot read pipeline %s now: there were too many wrong passwords from your address", pipeline),
				Hint: "correct the password in /etc/apt/auth.conf.d and wait a minute",
			}
		}
		id, err := g.Tokens.ByToken(r.Context(), secret)
		switch {
		case release.CodeOf(err) == release.NoAccess:
			g.forget(key)
			g.brake.note(Address(r))
			g.Log.Info("a reader was refused", "pipeline", pipeline, "user", shown(user), "from", Address(r))
			return g.ask(r, pipeline, "the password is no token that is good, nor the password of a device that may read it")
		case err != nil:
			if r.Context().Err() == nil {
				g.Log.Error("cannot look for a token", "error", err)
			}
			return failed()
		}
		t = known{roles: id.Roles, until: now.Add(tokenLife)}
		g.remember(key, t)
	}
	if !access.Allows(t.roles, "viewer", pipeline) {
		return &Refusal{
			Status: http.StatusForbidden,
			Text:   fmt.Sprintf("cannot read pipeline %s: the token has no role for it", pipeline),
			Hint:   "an admin makes one that has: repo-manager token create USER",
		}
	}
	return nil
}

// ask is the answer that makes a client send credentials, if it has any.
func (g *Gate) ask(r *http.Request, pipeline, cause string) *Refusal {
	machine := r.Host
	if proxied, _ := r.Context().Value(encryptedKey{}).(bool); !proxied && r.TLS == nil {
		machine = "http://" + machine // without it apt sends a password by TLS alone
	}
	return &Refusal{
		Status: http.StatusUnauthorized, Realm: "aptfleet " + pipeline,
		Text: fmt.Sprintf("cannot read pipeline %s: %s", pipeline, cause),
		Hint: fmt.Sprintf("put a token into /etc/apt/auth.conf.d/aptfleet.conf: machine %s/%s/ login NAME password TOKEN; an admin makes one with: repo-manager token create NAME", machine, pipeline),
	}
}

// credentials reads a name and a secret from a request: of Basic, or of Bearer,
// which has no name. People with a token may give any name.
func credentials(r *http.Request) (user, secret string, ok bool) {
	if scheme, rest, found := strings.Cut(r.Header.Get("Authorization"), " "); found && strings.EqualFold(scheme, "Bearer") {
		secret = strings.TrimSpace(rest)
		return "", secret, secret != ""
	}
	user, secret, ok = r.BasicAuth()
	return user, secret, ok && secret != ""
}

// shown is a user's name for the log. Some put the token where the name
// belongs: it must not be told.
func shown(user string) string {
	if len(user) > 32 {
		return user[:4] + "…"
	}
	return user
}

func (g *Gate) remember(key [sha256.Size]byte, t known) {
	g.mu.Lock()
	defer g.mu.Unlock()
	shrink(g.tokens, tokensKept)
	g.tokens[key] = t
}

func (g *Gate) forget(key [sha256.Size]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.tokens, key)
}

// shrink drops any element of a map that is full.
func shrink[K comparable, V any](m map[K]V, limit int) {
	for key := range m {
		if len(m) < limit {
			return
		}
		delete(m, key)
	}
}

// Pooled decides on a file that is in the pool and that Enter let pass; for
// every other path it has nothing to say.
func (g *Gate) Pooled(r *http.Request, name string) *Refusal {
	at, inPool := parsePooled(name)
	if !inPool || !g.Releases.HasPrivate() {
		return nil
	}
	if at.pipeline == "" {
		return notFound()
	}
	key, now := listing{at.pipeline, at.sha256}, g.Clock()
	g.mu.Lock()
	until, found := g.listed[key]
	g.mu.Unlock()
	if found && now.Before(until) {
		return nil
	}
	if wait := g.brake.wait(Address(r)); wait > 0 {
		return &Refusal{Status: http.StatusTooManyRequests, Wait: wait, Text: "cannot look for that file now: too much was asked for from your address that is not there"}
	}
	lists, err := g.Releases.Lists(r.Context(), at.pipeline, at.base, at.name, at.sha256)
	switch {
	case err != nil && (r.Context().Err() != nil || errors.Is(err, context.Canceled)):
		return failed()
	case err != nil:
		g.Log.Error("cannot tell whether a pipeline lists a file", "pipeline", at.pipeline, "file", name, "error", err)
		return failed()
	case !lists:
		g.brake.note(Address(r)) // it exists, and looking took longer than for others
		return notFound()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	shrink(g.listed, listedKept)
	g.listed[key] = now.Add(listedLife)
	return nil
}

// pooled is what the path of a package file says.
type pooled struct {
	pipeline string // "" below /pool/ itself
	base     string // below the pipeline: "dev", "snapshots/<id>", "states/<id>"
	name     string // of the package
	sha256   [sha256.Size]byte
}

// parsePooled reads [<pipeline>/<base>/]pool/<2 hex>/<sha256>/<name>_…; inPool
// is true for every path that has "pool" where a base has its link, and one
// that is not of that form names no package.
func parsePooled(name string) (at pooled, inPool bool) {
	elements := strings.Split(name, "/")
	switch {
	case elements[0] == "pool":
		elements = elements[1:]
	case len(elements) > 2 && elements[2] == "pool":
		at.pipeline, at.base, elements = elements[0], elements[1], elements[3:]
	case len(elements) > 3 && elements[3] == "pool" && (elements[1] == "snapshots" || elements[1] == "states"):
		at.pipeline, at.base, elements = elements[0], elements[1]+"/"+elements[2], elements[4:]
	default:
		return pooled{}, false
	}
	if len(elements) == 3 {
		if raw, err := hex.DecodeString(elements[1]); err == nil && len(raw) == sha256.Size {
			at.sha256 = [sha256.Size]byte(raw)
			at.name, _, _ = strings.Cut(elements[2], "_")
		}
	}
	return at, true
}
