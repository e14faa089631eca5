package mirror

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"aptfleet/internal/deb"
	"aptfleet/internal/sign"
)

// futureTolerance is how far an upstream's Date may lie ahead of our clock;
// apt has the same default (Acquire::Max-FutureTime).
const futureTolerance = 10 * time.Second

// inRelease is an upstream Release text whose signature was good.
type inRelease struct {
	up     *upstream
	url    string
	raw    []byte // as downloaded, signature included
	signer string // fingerprint of the key
	fields deb.Stanza
	date   time.Time
	files  map[string]listed // by path below dists/<suite>
	byHash bool
}

// listed is what a Release text says about one file.
type listed struct {
	sha256 [32]byte
	size   int64
}

// what names the release for people.
func (r inRelease) what() string {
	name := strings.TrimSpace(r.fields.Get("Origin") + " " + r.fields.Get("Codename"))
	if version := r.fields.Get("Version"); version != "" {
		name += " " + version
	}
	return name
}

// release fetches the suite's InRelease and checks everything about it that
// can be checked without a history.
func (u *upstream) release(ctx context.Context, now time.Time) (inRelease, error) {
	name := "dists/" + u.suite.Suite + "/InRelease"
	fail := func(err error) (inRelease, error) {
		return inRelease{}, fmt.Errorf("cannot accept %s: %w", u.url(name), err)
	}
	if len(u.suite.Keyring) == 0 {
		return fail(errors.New("the suite has no keyring to verify it with"))
	}
	var raw bytes.Buffer
	err := u.retry(ctx, func() error {
		return u.fetch(ctx, name, 0, maxInRelease, func(int64) (io.Writer, error) {
			raw.Reset()
			return &raw, nil
		})
	})
	if err != nil {
		return fail(err)
	}
	text, signer, err := sign.Verify(raw.Bytes(), u.suite.Keyring, now)
	if err != nil {
		return fail(err)
	}
	fields, err := deb.ParseStanza(text)
	if err != nil {
		return fail(err)
	}
	r := inRelease{up: u, url: u.url(name), raw: raw.Bytes(), signer: signer, fields: fields}
	if suite, codename := fields.Get("Suite"), fields.Get("Codename"); suite != u.suite.Suite && codename != u.suite.Suite {
		return fail(fmt.Errorf("it is the release of %s (%s), not of %s", codename, suite, u.suite.Suite))
	}
	if r.date, err = parseTime(fields.Get("Date")); err != nil {
		return fail(fmt.Errorf("its Date: %w", err))
	}
	if ahead := r.date.Sub(now); ahead > futureTolerance {
		return fail(fmt.Errorf("its Date %s lies %s in the future; check this machine's clock", r.date.Format(time.RFC3339), ahead.Round(time.Second)))
	}
	if until := fields.Get("Valid-Until"); until != "" {
		end, err := parseTime(until)
		if err != nil {
			return fail(fmt.Errorf("its Valid-Until: %w", err))
		}
		if !now.Before(end) {
			return fail(fmt.Errorf("it expired at %s", end.Format(time.RFC3339)))
		}
	}
	if r.files, err = parseFiles(fields.Get("SHA256")); err != nil {
		return fail(err)
	}
	r.byHash = fields.Get("Acquire-By-Hash") == "yes"
	return r, nil
}

// parseTime reads the dates of Release files: RFC 1123 in UTC, the zone
// written as a name or a number, the day with one or two digits.
func parseTime(s string) (time.Time, error) {
	for _, zone := range []string{"UTC", "GMT", "-0700"} {
		if t, err := time.Parse("Mon, _2 Jan 2006 15:04:05 "+zone, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no date", s)
}

// parseFiles reads the lines "<sha256> <size> <path>".
func parseFiles(value string) (map[string]listed, error) {
	if value == "" {
		return nil, errors.New("it lists no files under SHA256")
	}
	files := map[string]listed{}
	for line := range strings.Lines(value) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) != 3 {
			return nil, fmt.Errorf("its SHA256 line %q is not a hash, a size and a path", strings.TrimSpace(line))
		}
		var f listed
		raw, err := hex.DecodeString(words[0])
		if err != nil || len(raw) != len(f.sha256) {
			return nil, fmt.Errorf("%q is no SHA-256 (of %s)", words[0], words[2])
		}
		copy(f.sha256[:], raw)
		if f.size, err = strconv.ParseInt(words[1], 10, 64); err != nil || f.size < 0 {
			return nil, fmt.Errorf("%q is no size (of %s)", words[1], words[2])
		}
		files[words[2]] = f
	}
	return files, nil
}
