// Package publish turns states into what apt reads: plain files below one
// directory, signed, served by anything that serves files.
//
//	<pipeline>/<stage>/            a base that moves
//	<pipeline>/snapshots/<id>/     bases that never change
//	<pipeline>/states/<state id>/
//	.indices/<2 hex>/<key>/        each index file once; bases hold hard links to it
//	.indices/newest                as old as the newest of them, which may be gone
//	.tmp/                          files under way; emptied by New
//
// A base is dists/<distribution>/ and a relative symlink to the pool. Every
// publication writes index files under names nobody asks for yet, syncs, and
// renames InRelease last: that rename is the one moment at which a base moves.
// apt fetches indices by the hash that InRelease names (Acquire-By-Hash), and a
// superseded index stays for a while, so a client half-way through an update
// never meets an index that its InRelease does not describe.
//
// Everything here follows from the database and the blobs: a publication that
// was cut short is repeated and ends in the same files.
package publish

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"aptfleet/internal/deb"
	"aptfleet/snapshots"
)

// Signer is the archive key. sign.Key is one.
type Signer interface {
	ClearSign(text []byte, at time.Time) ([]byte, error)
	Detach(text []byte, at time.Time) ([]byte, error)
	Certificate() ([]byte, error)
}

// Defaults of a Config.
const (
	DefaultKeep   = time.Hour
	DefaultBudget = 4 << 30
)

// Config is what a Publisher needs.
type Config struct {
	Public string           // directory of the published tree
	Blobs  BlobStore        // texts and frames
	Signer Signer           // the archive key
	Now    func() time.Time // the clock
	Keep   time.Duration    // how long a superseded index stays; 0: DefaultKeep
	Budget int64            // bytes that the superseded indices of a stage may have; 0: DefaultBudget
}

// Publisher writes the published tree. Its methods may be called by many at
// once; publications happen one after the other.
type Publisher struct {
	tree   tree
	blobs  BlobStore
	signer Signer
	now    func() time.Time
	keep   time.Duration
	budget int64

	indexBytes atomic.Int64 // of all index files

	mu       sync.Mutex        // publications
	newest   time.Time         // second in which the newest index file was modified
	sums     map[IndexKey]sums // of index files that this process read or wrote
	unsealed map[IndexKey]bool // index files that may not be durable yet
	trails   map[string]*trail // by pipeline and index: its last version
	aging    map[string]aging  // by stage: its superseded index files
	seq      sequence
	checks   int                 // under way
	touched  map[string]sequence // by base: when it was last written during a check
}

// sequence counts publications.
type sequence int64

// New uses the directory c.Public, which it makes if needed, and removes what
// a crash left unfinished there.
func New(c Config) (*Publisher, error) {
	p := &Publisher{
		tree: newTree(c.Public), blobs: c.Blobs, signer: c.Signer, now: c.Now, keep: cmp.Or(c.Keep, DefaultKeep), budget: cmp.Or(c.Budget, DefaultBudget),
		sums: make(map[IndexKey]sums), unsealed: make(map[IndexKey]bool), trails: make(map[string]*trail), aging: make(map[string]aging), touched: make(map[string]sequence),
	}
	if err := os.RemoveAll(filepath.Join(c.Public, temporary)); err != nil {
		return nil, fmt.Errorf("cannot open published tree: %w", err)
	}
	for _, dir := range []string{temporary, indexStore} {
		if err := os.MkdirAll(filepath.Join(c.Public, dir), 0o755); err != nil {
			return nil, fmt.Errorf("cannot open published tree: %w", err)
		}
	}
	p.stamped(p.newestMade())
	err := p.eachIndex(func(_ IndexKey, bytes int64, modified time.Time) {
		p.indexBytes.Add(bytes)
		p.stamped(modified)
	})
	if err != nil {
		return nil, fmt.Errorf("cannot open published tree: %w", err)
	}
	return p, nil
}

// Base is what the Release files of a pipeline have in common. apt refuses an
// archive whose Origin, Label, Suite or Codename changes, so Pipeline and
// Distribution never do.
type Base struct {
	Pipeline      string   // Label, and the directory
	Distribution  string   // Codename, and the directory below dists/
	Architectures []string // without "all"
	Components    []string
}

var (
	pipelineName     = regexp.MustCompile(`^[a-z0-9][a-z0-9+._-]{0,63}$`)
	distributionName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9+._-]{0,63}$`)
	fixedDirectory   = regexp.MustCompile(`^(snapshots|states)/[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	reservedStages   = []string{"pool", "snapshots", "states"}
)

// ValidPipeline accepts what can be the name of a pipeline: a directory at the
// root of the tree, beside pool.
func ValidPipeline(name string) error {
	if !pipelineName.MatchString(name) || name == "pool" {
		return fmt.Errorf("cannot use %q as the name of a pipeline: want up to 64 lower-case letters, digits, + - . _, and not pool", name)
	}
	return nil
}

// ValidStage accepts what can be the name of a stage: a directory beside
// snapshots and states.
func ValidStage(name string) error {
	if !pipelineName.MatchString(name) || slices.Contains(reservedStages, name) {
		return fmt.Errorf("cannot use %q as the name of a stage: want up to 64 lower-case letters, digits, + - . _, and not one of %q", name, reservedStages)
	}
	return nil
}

// ValidDistribution accepts what can stand below dists/.
func ValidDistribution(name string) error {
	if !distributionName.MatchString(name) {
		return fmt.Errorf("cannot use %q as the name of a distribution: want up to 64 letters, digits, + - . _", name)
	}
	return nil
}

func (b Base) validate() error {
	if err := ValidPipeline(b.Pipeline); err != nil {
		return err
	}
	if err := ValidDistribution(b.Distribution); err != nil {
		return err
	}
	for _, architecture := range b.Architectures {
		if err := deb.ValidArchitecture(architecture); err != nil {
			return err
		}
		if architecture == "all" {
			return errors.New("cannot publish an index for all: packages for all are in every index")
		}
	}
	for _, component := range b.Components {
		if err := snapshots.ValidComponent(component); err != nil {
			return err
		}
	}
	return nil
}

// keys returns the declared component × architecture, sorted.
func (b Base) keys() []snapshots.Key {
	var keys []snapshots.Key
	for _, component := range slices.Sorted(slices.Values(b.Components)) {
		for _, architecture := range slices.Sorted(slices.Values(b.Architectures)) {
			keys = append(keys, snapshots.Key{Component: component, Architecture: architecture})
		}
	}
	return slices.Compact(keys)
}

// Signed is a Release text with its signatures: the files Release, InRelease
// and Release.gpg.
type Signed struct{ Text, InRelease, Gpg []byte }

func (s Signed) equal(o Signed) bool {
	return bytes.Equal(s.Text, o.Text) && bytes.Equal(s.InRelease, o.InRelease) && bytes.Equal(s.Gpg, o.Gpg)
}

// Sign signs text with the archive key, at the clock's time: verifiers refuse
// signatures from the future, so a Date that runs ahead does not count here.
func (p *Publisher) Sign(text []byte) (Signed, error) {
	at := p.now()
	inRelease, err := p.signer.ClearSign(text, at)
	if err != nil {
		return Signed{}, fmt.Errorf("cannot sign Release: %w", err)
	}
	gpg, err := p.signer.Detach(text, at)
	if err != nil {
		return Signed{}, fmt.Errorf("cannot sign Release: %w", err)
	}
	return Signed{Text: text, InRelease: inRelease, Gpg: gpg}, nil
}

// sum is the SHA-256 of a file.
type sum = [sha256.Size]byte
