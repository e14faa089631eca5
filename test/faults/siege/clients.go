package siege

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/test/rig"
)

const (
	distribution = "trixie"
	architecture = "amd64"
	repository   = "apps"
)

// pipelines are those of every archive: several, for the server does what
// concerns one of them while others move.
var pipelines = []string{"one", "two", "three"}

// stages are those of every pipeline; the first follows uploads.
var stages = []string{"dev", "canary", "production"}

// people is how a siege is staffed, for each pipeline.
const (
	uploaders = 2
	movers    = 1
	readers   = 2 // every other one is hasty
)

// packagesEach is how many packages an uploader takes care of.
const packagesEach = 8

// crowd is who works with one server until it dies.
type crowd struct {
	*world
	server *rig.Server
	wish   string // point that is waited for, "" for none
}

// refused tells a refusal from a server that is gone. nil is neither.
func refused(err error) bool {
	var answer *client.Error
	return errors.As(err, &answer)
}

// deb is version n of a package. The same arguments give the same bytes.
func deb(at subject, n int) ([]byte, error) {
	seed := sha256.Sum256(fmt.Appendf(nil, "%s %s %d", at.pipeline, at.name, n))
	random := rand.NewChaCha8(seed)
	size := 200 + random.Uint64()%4000
	if random.Uint64()%10 == 0 {
		size *= 50
	}
	content := make([]byte, size)
	// It never fails.
	_, _ = random.Read(content)
	return rig.Package(at.name, versionName(n), architecture, content)
}

// upload is one uploader: new versions of its packages, and sometimes one
// again that was not answered.
func (c *crowd) upload(ctx context.Context, random *rand.Rand, pipeline string, who int) error {
	for ctx.Err() == nil {
		at := subject{pipeline, fmt.Sprintf("app%d-%d", who, random.IntN(packagesEach))}
		n := c.ledger.unanswered(at)
		if n == 0 || random.IntN(2) == 0 {
			var failed error
			n = c.ledger.tries(at, func(n int) string {
				body, err := deb(at, n)
				failed = err
				sum := sha256.Sum256(body)
				return hex.EncodeToString(sum[:])
			})
			if failed != nil {
				return failed
			}
		}
		body, err := deb(at, n)
		if err != nil {
			return err
		}
		_, err = c.server.API.Upload(ctx, pipeline, repository, client.File{
			Name: at.name + ".deb", Body: bytes.NewReader(body), Size: int64(len(body)),
		})
		switch {
		case refused(err):
			c.ledger.problem("%s/%s %s was refused: %v", pipeline, at.name, versionName(n), err)
		case err != nil:
			return nil // the server is gone
		default:
			c.ledger.accepted(at, n)
		}
	}
	return nil
}

// move is one person who promotes, undoes and names.
func (c *crowd) move(ctx context.Context, random *rand.Rand, pipeline string) error {
	for ctx.Err() == nil {
		at := subject{pipeline, stages[1+random.IntN(len(stages)-1)]}
		act := []string{"promote", "promote", "undo", "snapshot"}[random.IntN(4)]
		if wished := c.result.Tally.phaseOf(c.wish); random.IntN(4) > 0 && (wished == "promote" || wished == "undo" || wished == "snapshot") {
			act = wished
		}
		var err error
		var made protocol.Move
		switch act {
		case "promote":
			from := "dev"
			if at.name == "production" && random.IntN(2) == 0 {
				from = "canary"
			}
			made, err = c.server.API.Promote(ctx, pipeline, at.name, protocol.Promote{Snapshot: from, Reason: "siege"})
		case "undo":
			made, err = c.server.API.Undo(ctx, pipeline, at.name, protocol.Promote{Reason: "siege"})
		case "snapshot":
			var s protocol.Snapshot
			if s, err = c.server.API.CreateSnapshot(ctx, pipeline, protocol.NewSnapshot{Note: "siege"}); err == nil {
				c.ledger.named(pipeline, s)
			}
		}
		var answer *client.Error
		switch {
		case err == nil:
			c.ledger.moved(at, made)
		case errors.As(err, &answer):
			// A stage that offered nothing before, or nothing yet.
			if answer.Code != "refused" && answer.Code != "not-found" {
				c.ledger.problem("%s of %s/%s: %v", act, pipeline, at.name, err)
			}
		default:
			return nil // the server is gone
		}
		sleep(ctx, time.Duration(random.IntN(30))*time.Millisecond)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
