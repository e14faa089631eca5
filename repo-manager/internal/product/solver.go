package product

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"aptfleet/internal/aptroot"
	"aptfleet/internal/bom"
	"aptfleet/internal/deb"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// solver answers questions with apt. It is used by one goroutine at a time.
type solver struct {
	chunks snapshots.Chunks
	dir    string        // for apt's lists; nothing in it outlives the process
	limit  time.Duration // for one question
	lists  []prepared    // used last first
}

// maxPrepared is how many states have their lists ready. Those of all Debian
// take 100 MB each.
const maxPrepared = 2

// prepared are the package lists of one architecture of a state, as apt reads
// them.
type prepared struct {
	state        snapshots.ID
	architecture string
	root         *aptroot.Root
	dir          string
}

// open empties the directory.
func (s *solver) open() error {
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("cannot empty %s: %w", s.dir, err)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("cannot make %s: %w", s.dir, err)
	}
	return nil
}

// solved is the answer to one question.
type solved struct {
	bill    bom.BOM
	text    []byte
	details []Detail
	verdict *Verdict // instead of all others
}

// solve answers a question. modules are the packages of each module, and those
// of the product itself under "". An error is trouble, not an answer; it
// wraps fs.ErrNotExist if the state is gone.
func (s *solver) solve(ctx context.Context, question bom.BOM, modules map[string][]string) (solved, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.limit, fmt.Errorf("it took longer than %s", s.limit))
	defer cancel()
	id, err := snapshots.ParseID(question.State)
	if err != nil {
		return solved{}, err
	}
	state, err := snapshots.Load(ctx, s.chunks, id)
	if err != nil {
		return solved{}, err
	}
	root, err := s.prepare(ctx, state, question.Architecture)
	if err != nil {
		return solved{}, err
	}
	var options []string
	if question.Recommends {
		options = []string{"--install-recommends"}
	}
	list, err := root.Solve(ctx, question.TopLevel, options...)
	var unsolvable *aptroot.UnsolvableError
	switch {
	case errors.As(err, &unsolvable):
		dose, err := s.dose(ctx, root, question)
		return solved{verdict: &Verdict{Summary: unsolvable.Summary, Apt: unsolvable.Said, Dose: dose}}, err
	case errors.Is(err, exec.ErrNotFound):
		return solved{}, &release.Error{
			Code: release.Refused, Text: "cannot compute a bill of materials: this server's machine has no apt-get", Hint: "install apt and dpkg there", Err: err,
		}
	case err != nil:
		return solved{}, err
	}
	bill := question
	for _, p := range list {
		bill.Packages = append(bill.Packages, bom.Package{Name: p.Name, Architecture: p.Architecture, Version: p.Version, SHA256: p.SHA256})
	}
	members, err := s.find(ctx, state, bill)
	if err != nil {
		return solved{}, err
	}
	all, err := details(question, modules, members)
	if err != nil {
		return solved{}, err
	}
	text := bill.Encode()
	if _, err := bom.Decode(text); err != nil {
		return solved{}, err // a device would refuse it too
	}
	return solved{bill: bill, text: text, details: all}, nil
}

// prepare returns the lists of a state, made of its chunks.
func (s *solver) prepare(ctx context.Context, state snapshots.State, architecture string) (*aptroot.Root, error) {
	at := slices.IndexFunc(s.lists, func(p prepared) bool { return p.state == state.ID() && p.architecture == architecture })
	if at >= 0 {
		p := s.lists[at]
		s.lists = slices.Insert(slices.Delete(s.lists, at, at+1), 0, p)
		return p.root, nil
	}
	for len(s.lists) >= maxPrepared {
		if err := s.drop(len(s.lists) - 1); err != nil {
			return nil, err
		}
	}
	dir := filepath.Join(s.dir, architecture+"-"+state.ID().String())
	keys := keysFor(state, architecture)
	components := make([]string, len(keys))
	for i, key := range keys {
		components[i] = key.Component
	}
	root, err := aptroot.NewOffline(dir, architecture, components, func(component string, w io.Writer) error {
		for _, ref := range state.Index(snapshots.Key{Component: component, Architecture: architecture}).Chunks {
			text, err := s.chunks.Get(ctx, ref.ID)
			if err == nil {
				err = mustBe(ref.ID, text)
			}
			if err == nil {
				_, err = w.Write(text)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	s.lists = slices.Insert(s.lists, 0, prepared{state.ID(), architecture, root, dir})
	return root, nil
}

// drop removes lists. What could not be read to the end must not be used again.
func (s *solver) drop(at int) error {
	dir := s.lists[at].dir
	s.lists = slices.Delete(s.lists, at, at+1)
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("cannot remove package lists: %w", err)
	}
	return nil
}

// forget drops all lists: after trouble they may be cut.
func (s *solver) forget() error {
	var errs []error
	for len(s.lists) > 0 {
		errs = append(errs, s.drop(0))
	}
	return errors.Join(errs...)
}

func keysFor(state snapshots.State, architecture string) []snapshots.Key {
	return slices.DeleteFunc(slices.Clone(state.Keys()), func(k snapshots.Key) bool { return k.Architecture != architecture })
}

// find returns the stanzas of the packages of a bill, in its order.
func (s *solver) find(ctx context.Context, state snapshots.State, bill bom.BOM) ([]member, error) {
	names := make([]string, len(bill.Packages))
	for i, p := range bill.Packages {
		names[i] = p.Name
	}
	slices.Sort(names)
	names = slices.Compact(names)
	found := make(map[bom.Package]member)
	for _, key := range keysFor(state, bill.Architecture) {
		there, err := snapshots.FindAll(ctx, s.chunks, state, key, names)
		if err != nil {
			return nil, err
		}
		for _, packages := range there {
			for _, p := range packages {
				line := bom.Package{Name: p.Name, Architecture: p.Architecture, Version: p.Version, SHA256: hex.EncodeToString(p.SHA256[:])}
				if _, known := found[line]; known {
					continue
				}
				stanza, err := deb.ParseStanza(p.Stanza)
				if err != nil {
					return nil, err
				}
				found[line] = member{Package: line, component: key.Component, stanza: stanza}
			}
		}
	}
	members := make([]member, len(bill.Packages))
	for i, p := range bill.Packages {
		m, ok := found[p]
		if !ok {
			return nil, fmt.Errorf("apt chose %s with SHA-256 %s, which the state does not have", p, p.SHA256)
		}
		members[i] = m
	}
	return members, nil
}

const (
	doseProgram = "dose-debcheck"
	// doseHint says how to get a second explanation.
	doseHint = "dose-debcheck is not on the server's machine: install the package dose-distcheck there for its explanation of later verdicts"
	// maxDose bounds its explanation, in bytes.
	maxDose = 32 << 10
)

// dose asks dose-debcheck about a package that depends on all that is asked
// for.
func (s *solver) dose(ctx context.Context, root *aptroot.Root, question bom.BOM) (string, error) {
	program, err := exec.LookPath(doseProgram)
	if err != nil {
		return doseHint, nil
	}
	lists, err := root.Lists()
	if err != nil {
		return "", err
	}
	about, err := concerned(lists, question)
	if err != nil {
		return "", err
	}
	background, foreground := root.Path("concerned"), root.Path("product")
	args := []string{"--deb-native-arch=" + question.Architecture, "--explain", "--failures", "--bg=" + background, "--fg=" + foreground}
	if err := os.WriteFile(background, about.stanzas, 0o600); err != nil {
		return "", err
	}
	// The name has a capital letter: no package is called that.
	asked := fmt.Sprintf("Package: Product-%s\nVersion: 1\nArchitecture: %s\nDepends: %s\n\n", question.Product, question.Architecture, strings.Join(about.wanted, ", "))
	if err := os.WriteFile(foreground, []byte(asked), 0o600); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	cmd.WaitDelay = 5 * time.Second
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err = cmd.Run()
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	// It exits with 1 where packages cannot be installed, above 63 on trouble.
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "dose-debcheck finds packages that could be installed together; apt's choice led elsewhere", nil
	case !errors.As(err, &exit) || exit.ExitCode() < 0:
		return "", fmt.Errorf("cannot run dose-debcheck: %w", err)
	case exit.ExitCode() > 63:
		line, _, _ := strings.Cut(strings.TrimSpace(complaints.String()), "\n")
		return "dose-debcheck could not read the package lists: " + line, nil
	}
	return strings.TrimSpace(string(out.Next(maxDose))), nil
}

// mustBe holds a text against its name.
func mustBe(id snapshots.ID, text []byte) error {
	if got := bom.Sum(text); got != id.String() {
		return fmt.Errorf("chunk %s has the SHA-256 %s: the store is damaged", id, got)
	}
	return nil
}
