package siege

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path"
	"time"

	"aptfleet/test/rig"
)

// reader is a client that fetches an InRelease and then the index files that
// it names. A hasty one waits for a new InRelease and fetches them the moment
// it is there. The others take their time, so that one update spans many
// publications. Both keep the InRelease while the server is away, as apt does.
type reader struct {
	hasty bool
	at    subject
	in    rig.InRelease
	got   time.Time // when in was asked for
	next  int       // of in.Indices
}

// slowest is how long a client may take from InRelease to the last index file.
const slowest = keepSuperseded - 4*time.Second

// errAway says that the server did not answer, or broke off.
var errAway = errors.New("the server is away")

// notOK is an answer other than 200.
type notOK struct {
	path   string
	status int
}

func (e *notOK) Error() string { return fmt.Sprintf("%s: HTTP %d", e.path, e.status) }

// fetch gets a published file.
func (c *crowd) fetch(ctx context.Context, path string) (content []byte, modified time.Time, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server.Public+"/"+path, nil)
	if err != nil {
		return nil, modified, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, modified, errAway
	}
	defer resp.Body.Close()
	content, err = io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return nil, modified, errAway
	case resp.StatusCode != http.StatusOK:
		return nil, modified, &notOK{path, resp.StatusCode}
	}
	modified, err = http.ParseTime(resp.Header.Get("Last-Modified"))
	return content, modified, err
}

// read is one client, until the server is away.
func (c *crowd) read(ctx context.Context, random *rand.Rand, r *reader, pipeline string) error {
	for ctx.Err() == nil {
		err := c.step(ctx, random, r, pipeline)
		switch {
		case err == nil:
			c.reads.Add(1)
		case errors.Is(err, errAway):
			return nil
		default:
			c.ledger.problem("a client of %s/%s: %v", r.at.pipeline, r.at.name, err)
			r.in = rig.InRelease{}
		}
		if !r.hasty {
			sleep(ctx, time.Duration(random.IntN(20))*time.Millisecond)
		}
	}
	return nil
}

// step fetches one file.
func (c *crowd) step(ctx context.Context, random *rand.Rand, r *reader, pipeline string) error {
	if r.next >= len(r.in.Indices) || time.Since(r.got) > slowest {
		r.at = subject{pipeline, stages[random.IntN(len(stages))]}
		r.in, r.next = rig.InRelease{}, 0
		return c.begin(ctx, r)
	}
	file := r.in.Indices[r.next]
	index, _, err := c.fetch(ctx, path.Join(r.at.pipeline, r.at.name, "dists", distribution, file.ByHash()))
	if err == nil {
		err = file.Verify(index)
	}
	if err != nil {
		return err
	}
	r.next++
	if path.Ext(file.Path) != ".gz" {
		return nil
	}
	entries, err := rig.ReadIndex(index)
	if err != nil || len(entries) == 0 {
		return err
	}
	e := entries[random.IntN(len(entries))]
	content, _, err := c.fetch(ctx, path.Join(r.at.pipeline, r.at.name, e.Filename))
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != e.SHA256 {
		return fmt.Errorf("%s has other bytes than the index says", e.Filename)
	}
	return nil
}

// haste is how long a hasty client waits for a new InRelease of a stage.
const haste = 500 * time.Millisecond

// begin fetches an InRelease.
func (c *crowd) begin(ctx context.Context, r *reader) error {
	before := c.ledger.seen(r.at)
	var first []byte
	for began := time.Now(); ; sleep(ctx, time.Millisecond) {
		asked := time.Now()
		content, modified, err := c.fetch(ctx, path.Join(r.at.pipeline, r.at.name, "dists", distribution, "InRelease"))
		var missing *notOK
		if errors.As(err, &missing) && missing.status == http.StatusNotFound && before.text == "" {
			return nil // the stage offers nothing yet
		}
		if err != nil {
			return err
		}
		if first == nil {
			first = content
		}
		if r.hasty && time.Since(began) < haste && bytes.Equal(first, content) {
			continue
		}
		in, err := rig.ReadInRelease(content, c.keyring)
		if err != nil {
			return err
		}
		c.ledger.saw(r.at, dated{in.Date, modified, string(in.Text)}, before)
		c.ledger.record(func() { r.in, r.got = in, asked })
		return nil
	}
}
