// Package archive asks the server what it offers: it fetches an InRelease file,
// believes nothing of it before the signature is verified, and binds the device
// to the one state that the signed text names.
package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"aptfleet/internal/deb"
	"aptfleet/internal/sign"
)

// maxInRelease bounds an InRelease file in bytes. Debian's own has 200 kB.
const maxInRelease = 1 << 20

// Offer is what a base offers, from signed text alone.
type Offer struct {
	State    string    `json:"state"`    // id: 64 hex digits
	Snapshot string    `json:"snapshot"` // name of the state; "" if it has none
	Date     time.Time `json:"date"`     // when it was signed off by the server
	Release  string    `json:"release"`  // SHA-256 of the text, which is that of the file Release beside it

	validUntil time.Time // zero: for ever
	indices    string    // the SHA256 field
}

// Kind says what is wrong with an answer, for those who must act on it.
type Kind string

// The kinds of Error.
const (
	Unreachable Kind = "unreachable" // no answer, or not 200
	Tampered    Kind = "tampered"    // the signature does not verify, or the text is not that of the base
	Expired     Kind = "expired"     // Valid-Until has passed
	Older       Kind = "older"       // signed before one that was seen already
	Package     Kind = "package"     // a package of the bill of materials is not in the signed index like that
)

// Error is why an offer was not believed.
type Error struct {
	Kind Kind
	What string // what was asked for
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("cannot trust %s: %v", e.What, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Client asks one archive.
type Client struct {
	HTTP         *http.Client
	URL          string // without a slash at its end
	Distribution string
	Keyring      string // path; read anew for every check
	Clock        func() time.Time
}

// Check fetches and verifies the InRelease file of a base, which is
// <pipeline>/<stage>, <pipeline>/snapshots/<id> or <pipeline>/states/<id>: the
// signed text must say that it belongs there. floor is a time that is known to
// have passed (a clock that stands before it is wrong); seen is the date of the
// newest InRelease that this base ever offered: an older one is refused. Both
// may be zero.
func (c *Client) Check(ctx context.Context, base string, floor, seen time.Time) (Offer, error) {
	path := c.path(base)
	raw, err := c.fetch(ctx, path)
	if err != nil {
		return Offer{}, &Error{Unreachable, path, err}
	}
	return c.verify(base, raw, floor, seen)
}

// path is where the InRelease file of a base lies below the archive.
func (c *Client) path(base string) string { return base + "/dists/" + c.Distribution + "/InRelease" }

// CheckState fetches the InRelease file of a state's own base and compares it
// with the offer that named the state: the same state, the same indices.
func (c *Client) CheckState(ctx context.Context, base string, offer Offer, floor time.Time) error {
	pinned, err := c.Check(ctx, base, floor, time.Time{})
	if err != nil {
		return err
	}
	return c.same(base, pinned, offer)
}

// CheckText does the same for an InRelease file that apt fetched.
func (c *Client) CheckText(base string, inRelease []byte, offer Offer, floor time.Time) error {
	pinned, err := c.verify(base, inRelease, floor, time.Time{})
	if err != nil {
		return err
	}
	return c.same(base, pinned, offer)
}

func (c *Client) same(base string, got, want Offer) error {
	if got.State != want.State {
		return &Error{Tampered, base, fmt.Errorf("it holds state %s, not %s", got.State, want.State)}
	}
	if got.indices != want.indices {
		return &Error{Tampered, base, errors.New("its indices are not those that were offered")}
	}
	return nil
}

// Reachable reports whether the server answers for a base.
func (c *Client) Reachable(ctx context.Context, base string) error {
	_, err := c.fetch(ctx, c.path(base))
	return err
}

// File fetches a file of at most limit bytes. Nothing vouches for its content.
func (c *Client) File(ctx context.Context, path string, limit int64) ([]byte, error) {
	raw, err := c.get(ctx, path, limit)
	if err != nil {
		return nil, &Error{Unreachable, path, err}
	}
	return raw, nil
}

func (c *Client) fetch(ctx context.Context, path string) ([]byte, error) {
	return c.get(ctx, path, maxInRelease)
}

func (c *Client) get(ctx context.Context, path string, limit int64) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL+"/"+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Cache-Control", "max-age=0")
	answer, err := c.HTTP.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answers %s", answer.Status)
	}
	raw, err := io.ReadAll(io.LimitReader(answer.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("the answer has more than %d bytes", limit)
	}
	return raw, nil
}

var (
	datePattern     = regexp.MustCompile(`(?m)^Date: (.*)$`)
	snapshotPattern = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z$`)
)

func (c *Client) verify(base string, raw []byte, floor, seen time.Time) (Offer, error) {
	what := c.path(base)
	keyring, err := os.ReadFile(c.Keyring)
	if err != nil {
		return Offer{}, fmt.Errorf("cannot verify %s: %w", what, err)
	}
	now := c.Clock()
	if floor.After(now) {
		now = floor
	}
	// A device without a clock meets signatures from its future. The date
	// serves as the time to verify at; it is believed only once the signature
	// over it is.
	at := now
	if m := datePattern.FindSubmatch(raw); m != nil {
		if date, err := releaseTime(string(m[1])); err == nil && date.After(at) {
			at = date
		}
	}
	text, _, err := sign.Verify(raw, keyring, at)
	if err != nil {
		return Offer{}, &Error{Tampered, what, err}
	}
	offer, err := c.parse(text, base)
	if err != nil {
		return Offer{}, &Error{Tampered, what, err}
	}
	sum := sha256.Sum256(text)
	offer.Release = hex.EncodeToString(sum[:])
	if offer.Date.After(now) {
		now = offer.Date
	}
	if !offer.validUntil.IsZero() && !now.Before(offer.validUntil) {
		return Offer{}, &Error{Expired, what, c.expired(offer.validUntil)}
	}
	if offer.Date.Before(seen) {
		return Offer{}, &Error{Older, what, fmt.Errorf("it is of %s, and one of %s was seen", offer.Date.Format(time.RFC3339), seen.Format(time.RFC3339))}
	}
	return offer, nil
}

// expired says why a text is not valid any more. A device cannot tell a clock
// that stands in the future from a server that does not renew: its owner can.
func (c *Client) expired(until time.Time) error {
	if now := c.Clock(); !now.Before(until) {
		return fmt.Errorf("it was valid until %s, and the clock of this device says %s: if that is wrong, set it (timedatectl set-time), else the server has not renewed it",
			until.Format(time.RFC3339), now.UTC().Format(time.DateOnly))
	}
	return fmt.Errorf("it was valid until %s, and the server has not renewed it", until.Format(time.RFC3339))
}

func (c *Client) parse(text []byte, base string) (Offer, error) {
	release, err := deb.ParseStanza(text)
	if err != nil {
		return Offer{}, err
	}
	if err := c.belongs(release, base); err != nil {
		return Offer{}, err
	}
	offer := Offer{State: release.Get("Aptfleet-State"), Snapshot: release.Get("Aptfleet-Snapshot"), indices: release.Get("SHA256")}
	if raw, err := hex.DecodeString(offer.State); err != nil || len(raw) != 32 || strings.ToLower(offer.State) != offer.State {
		return Offer{}, fmt.Errorf("its Aptfleet-State %q is not the id of a state", offer.State)
	}
	if offer.Snapshot != "" && !snapshotPattern.MatchString(offer.Snapshot) {
		return Offer{}, fmt.Errorf("its Aptfleet-Snapshot %q is not the id of a snapshot", offer.Snapshot)
	}
	if offer.indices == "" {
		return Offer{}, errors.New("it lists no indices")
	}
	if offer.Date, err = releaseTime(release.Get("Date")); err != nil {
		return Offer{}, fmt.Errorf("its Date: %w", err)
	}
	if until := release.Get("Valid-Until"); until != "" {
		if offer.validUntil, err = releaseTime(until); err != nil {
			return Offer{}, fmt.Errorf("its Valid-Until: %w", err)
		}
	}
	return offer, nil
}

// belongs refuses a text that another base signed: one key signs every stage of
// every pipeline, and who stands between the device and the server can answer
// for production with what dev offers.
func (c *Client) belongs(release deb.Stanza, base string) error {
	pipeline, place, _ := strings.Cut(base, "/")
	field, want := "Suite", place
	if id, ok := strings.CutPrefix(place, "snapshots/"); ok {
		field, want = "Aptfleet-Snapshot", id
	} else if id, ok := strings.CutPrefix(place, "states/"); ok {
		field, want = "Aptfleet-State", id
	}
	for _, expect := range []struct{ field, value string }{
		{"Label", pipeline}, {"Codename", c.Distribution}, {field, want},
	} {
		if got := release.Get(expect.field); got != expect.value {
			return fmt.Errorf("its %s is %q, not %q", expect.field, got, expect.value)
		}
	}
	return nil
}

// releaseTime reads a date of a Release file: RFC 1123 in UTC (Debian's
// RepositoryFormat, "Date, Valid-Until").
func releaseTime(s string) (time.Time, error) {
	for _, layout := range []string{"Mon, 02 Jan 2006 15:04:05 MST", "Mon, 2 Jan 2006 15:04:05 MST", time.RFC1123Z} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a date", s)
}
