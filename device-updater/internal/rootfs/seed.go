package rootfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"aptfleet/internal/atomicfile"
)

// What a deployment brings below state directories is a seed: it is copied
// where nothing is, once for each path. What is known to have been brought
// before is not brought again by another release, whatever became of it: what
// its owner deleted stays deleted.
//
// seeded/<n> has the paths that deployment n was the first to bring, each a Go
// string on a line of its own, relative to state/; it is there once all of them
// are. seeded/known has those of deployments that are gone.

const knownSeeds = "known"

func seedsDir(sysroot string) string { return filepath.Join(sysroot, "updater/seeded") }

// seed copies what the deployment brings, unless that was done. What is closed
// waits for a boot in which nothing is.
func (s State) seed(deployment string, dirs []stateDir, declared Declared, own, closed []string) error {
	stamp := filepath.Join(seedsDir(s.Sysroot), strconv.Itoa(s.Deployment))
	if _, err := os.Lstat(stamp); err == nil {
		return nil
	}
	known, err := readAllSeeds(seedsDir(s.Sysroot))
	if err != nil {
		return err
	}
	seeds := seeder{copier: newCopier(), known: known}
	for _, place := range declared.places {
		seeds.copier.divide[filepath.Join(s.Sysroot, place)] = true
	}
	for _, d := range dirs {
		skip := func(rel string) bool {
			return d.path == "var/lib" && slices.Contains(own, rel) || slices.Contains(closed, "/"+path.Join(d.path, rel)) ||
				slices.ContainsFunc(dirs, func(o stateDir) bool { return o.path == path.Join(d.path, rel) })
		}
		if err := seeds.tree(filepath.Join(deployment, d.path), filepath.Join(s.Sysroot, "state", d.name), d.name, skip); err != nil {
			return fmt.Errorf("cannot bring /%s of the release into the state: %w", d.path, err)
		}
	}
	if len(closed) > 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(stamp), 0o700); err != nil {
		return fmt.Errorf("cannot keep what was seeded: %w", err)
	}
	// The copies must be durable before the stamp says that they are there.
	if err := atomicfile.SyncFS(s.Sysroot); err != nil {
		return err
	}
	return writeSeeds(stamp, seeds.fresh)
}

// seeder brings seeds, and keeps which ones are brought for the first time.
type seeder struct {
	copier *copier
	known  map[string]bool
	fresh  []string
}

// tree copies from into to, which is called name, where to has nothing of that
// name and never had.
func (s *seeder) tree(from, to, name string, skip func(rel string) bool) error {
	if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
		return os.MkdirAll(to, 0o755)
	}
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(path, from), "/")
		if rel != "" && skip(rel) {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		target, seed := filepath.Join(to, rel), filepath.Join(name, rel)
		was := rel != "" && s.known[seed]
		if rel != "" && !was {
			s.fresh = append(s.fresh, seed)
		}
		info, err := os.Lstat(target)
		switch {
		case err == nil && d.IsDir() && !info.IsDir():
			return filepath.SkipDir // the state has something else there
		case err == nil, was && errors.Is(err, fs.ErrNotExist):
			return nil
		case errors.Is(err, fs.ErrNotExist):
			return s.node(path, target, to)
		}
		return err
	})
	if err != nil {
		return err
	}
	return s.copier.finish()
}

// node copies one file with the directories around it, which somebody may have
// deleted.
func (s *seeder) node(from, target, to string) error {
	if target != to {
		parent := filepath.Dir(target)
		if _, err := os.Lstat(parent); errors.Is(err, fs.ErrNotExist) {
			if err := s.node(filepath.Dir(from), parent, to); err != nil {
				return err
			}
		}
	}
	return s.copier.node(from, target)
}

// SettleSeeds keeps for good what deployment n was the first to bring: it is
// about to go. It may be repeated.
func (u Units) SettleSeeds(n int) error {
	of, err := readSeeds(filepath.Join(seedsDir(u.Sysroot), strconv.Itoa(n)))
	if err != nil || len(of) == 0 {
		return err
	}
	known, err := readSeeds(filepath.Join(seedsDir(u.Sysroot), knownSeeds))
	if err != nil {
		return err
	}
	all := slices.Concat(known, of)
	slices.Sort(all)
	return writeSeeds(filepath.Join(seedsDir(u.Sysroot), knownSeeds), slices.Compact(all))
}

// forgetSeeds lets what deployment n brought at places be brought again: what is
// there now is as it was before that deployment.
func forgetSeeds(dir string, n int, places []string) error {
	file := filepath.Join(dir, strconv.Itoa(n))
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	seeds, err := readSeeds(file)
	if err != nil {
		return err
	}
	left := slices.DeleteFunc(slices.Clone(seeds), func(seed string) bool {
		return slices.ContainsFunc(places, func(place string) bool { return within("state/"+seed, place) })
	})
	if len(left) == len(seeds) {
		return nil
	}
	return writeSeeds(file, left)
}

func readAllSeeds(dir string) (map[string]bool, error) {
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot tell what was seeded: %w", err)
	}
	known := make(map[string]bool)
	for _, f := range files {
		if _, err := strconv.Atoi(f.Name()); err != nil && f.Name() != knownSeeds {
			continue // a file that a power cut left half written
		}
		seeds, err := readSeeds(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, err
		}
		for _, seed := range seeds {
			known[seed] = true
		}
	}
	return known, nil
}

// readSeeds returns what a file names, none if there is no such file.
func readSeeds(file string) ([]string, error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot tell what was seeded: %w", err)
	}
	var seeds []string
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, maxManifestLine)
	for lines.Scan() {
		seed, err := strconv.Unquote(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("cannot tell what was seeded: %s: %q is not a path", file, lines.Text())
		}
		seeds = append(seeds, seed)
	}
	return seeds, lines.Err()
}

func writeSeeds(file string, seeds []string) error {
	var b bytes.Buffer
	for _, seed := range seeds {
		b.WriteString(strconv.Quote(seed) + "\n")
	}
	if err := atomicfile.Write(file, b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("cannot keep what was seeded: %w", err)
	}
	return nil
}
