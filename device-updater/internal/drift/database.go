package drift

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"aptfleet/internal/deb"
)

// file is what dpkg knows of one path.
type file struct {
	packages []string // that have it
	sum      string   // MD5 of the content in lower-case hex; "" if dpkg has none
	conffile bool
}

// diversion is one entry of dpkg's list (dpkg-divert(1)).
type diversion struct {
	to string
	by string // the package whose own file stays; ":" if a person did it
}

// database is what dpkg knows of the files of a root: its lists, sums,
// configuration files, diversions, overrides and filters.
type database struct {
	files      map[string]*file // by the path at which the file lies
	diversions map[string]diversion
	overrides  map[string]uint32 // path → mode that was fixed (dpkg-statoverride(1))
	filters    []filter
}

// filter is one path-exclude or path-include of dpkg.cfg(5).
type filter struct {
	pattern *regexp.Regexp
	include bool
}

const dpkgDir = "var/lib/dpkg"

func readDatabase(root string) (*database, error) {
	db := &database{files: make(map[string]*file), diversions: make(map[string]diversion), overrides: make(map[string]uint32)}
	dir, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if err := db.readDiversions(dir); err != nil {
		return nil, err
	}
	if err := db.readOverrides(dir); err != nil {
		return nil, err
	}
	if err := db.readFilters(dir); err != nil {
		return nil, err
	}
	status, err := dir.Open(dpkgDir + "/status")
	if err != nil {
		return nil, err
	}
	defer status.Close()
	stanzas := deb.NewStanzaReader(status, deb.MaxStanza)
	for {
		s, err := stanzas.Next()
		if errors.Is(err, io.EOF) {
			return db, nil
		}
		if err != nil {
			return nil, fmt.Errorf("dpkg status: %w", err)
		}
		if !strings.HasSuffix(s.Get("Status"), " installed") {
			continue
		}
		if err := db.readPackage(dir, s); err != nil {
			return nil, err
		}
	}
}

// readPackage adds the files of one package.
func (db *database) readPackage(dir *os.Root, s deb.Stanza) error {
	name := s.Get("Package")
	if err := deb.ValidPackageName(name); err != nil {
		return fmt.Errorf("dpkg status: %w", err)
	}
	// Packages that may be there for several architectures go by both names.
	if s.Get("Multi-Arch") == "same" {
		arch := s.Get("Architecture")
		if err := deb.ValidArchitecture(arch); err != nil {
			return fmt.Errorf("dpkg status: %w", err)
		}
		name += ":" + arch
	}
	sums := make(map[string]string)
	err := db.lines(dir, dpkgDir+"/info/"+name+".md5sums", func(line string) error {
		sum, path, ok := strings.Cut(line, "  ")
		if !ok || len(sum) != 32 {
			return fmt.Errorf("%q is not a sum and a path", line)
		}
		sums["/"+strings.TrimPrefix(path, "/")] = sum
		return nil
	})
	if err != nil {
		return err
	}
	configs, err := conffiles(s.Get("Conffiles"))
	if err != nil {
		return fmt.Errorf("dpkg status: package %s: %w", name, err)
	}
	return db.lines(dir, dpkgDir+"/info/"+name+".list", func(path string) error {
		if !strings.HasPrefix(path, "/") || filepath.Clean(path) != path {
			if path == "/." {
				return nil
			}
			return fmt.Errorf("%q is not a path", path)
		}
		at := db.place(path, s.Get("Package"))
		f := db.files[at]
		if f == nil {
			f = &file{}
			db.files[at] = f
		}
		f.packages = append(f.packages, name)
		if sum, ok := configs[path]; ok {
			f.sum, f.conffile = sum, true
		} else if sum, ok := sums[path]; ok {
			f.sum = sum
		}
		return nil
	})
}

// conffiles reads the field Conffiles of dpkg's status: a path, the MD5 of the
// package's version, and what is special. Of those that are obsolete nothing is
// expected.
func conffiles(field string) (map[string]string, error) {
	all := make(map[string]string)
	for line := range strings.Lines(field) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) < 2 {
			return nil, fmt.Errorf("%q is not a configuration file and its sum", strings.TrimSpace(line))
		}
		sum := words[1]
		if len(sum) != 32 || slices.Contains(words[2:], "obsolete") || slices.Contains(words[2:], "remove-on-upgrade") {
			sum = ""
		}
		all[words[0]] = sum
	}
	return all, nil
}

// place is where a package's file lies: diverted, unless the package is the one
// that makes room for its own.
func (db *database) place(path, name string) string {
	if d, ok := db.diversions[path]; ok && d.by != name {
		return d.to
	}
	return path
}

func (db *database) readDiversions(dir *os.Root) error {
	var three []string
	err := db.lines(dir, dpkgDir+"/diversions", func(line string) error {
		if three = append(three, line); len(three) == 3 {
			db.diversions[three[0]] = diversion{to: three[1], by: three[2]}
			three = nil
		}
		return nil
	})
	if err == nil && three != nil {
		err = errors.New("dpkg's diversions are not in threes")
	}
	return err
}

func (db *database) readOverrides(dir *os.Root) error {
	return db.lines(dir, dpkgDir+"/statoverride", func(line string) error {
		fields := strings.SplitN(line, " ", 4) // user group mode path
		if len(fields) != 4 {
			return fmt.Errorf("%q is not an override", line)
		}
		mode, err := strconv.ParseUint(fields[2], 8, 12)
		if err != nil {
			return fmt.Errorf("%q is not an override", line)
		}
		db.overrides[fields[3]] = uint32(mode)
		return nil
	})
}

// readFilters reads which files dpkg leaves out. A later filter goes before an
// earlier one.
func (db *database) readFilters(dir *os.Root) error {
	names := []string{"etc/dpkg/dpkg.cfg"}
	more, err := fs.Glob(dir.FS(), "etc/dpkg/dpkg.cfg.d/*")
	if err != nil {
		return err
	}
	for _, name := range append(names, more...) {
		err := db.lines(dir, name, func(line string) error {
			key, value, _ := strings.Cut(line, "=")
			if key, value = strings.TrimSpace(key), strings.TrimSpace(value); key != "path-exclude" && key != "path-include" {
				return nil
			}
			pattern, err := glob(strings.Trim(value, `"'`))
			if err != nil {
				return err
			}
			db.filters = append(db.filters, filter{pattern, key == "path-include"})
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// glob translates a pattern of fnmatch(3) without flags: '*' and '?' match a
// slash too.
func glob(pattern string) (*regexp.Regexp, error) {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; c {
		case '*':
			b.WriteString(".*")
		case '?':
			b.WriteString(".")
		case '[':
			end := strings.IndexByte(pattern[i+1:], ']')
			if end < 1 {
				b.WriteString(`\[`)
				continue
			}
			set := pattern[i+1 : i+1+end]
			if set[0] == '!' {
				set = "^" + set[1:]
			}
			b.WriteString("[" + set + "]")
			i += end + 1
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	return regexp.Compile("^(?s:" + b.String() + ")$")
}

// excluded reports whether dpkg leaves a path out.
func (db *database) excluded(path string) bool {
	out := false
	for _, f := range db.filters {
		if f.pattern.MatchString(path) {
			out = !f.include
		}
	}
	return out
}

// localDiversions are the paths from which a person diverted files.
func (db *database) localDiversions() []string {
	var all []string
	for from, d := range db.diversions {
		if d.by == ":" {
			all = append(all, from)
		}
	}
	slices.Sort(all)
	return all
}

func (db *database) overrideList() []string { return slices.Sorted(maps.Keys(db.overrides)) }

// maxLine bounds a line of dpkg's files: a path.
const maxLine = 64 << 10

// lines reads a file of the database; one that is not there has none.
func (db *database) lines(dir *os.Root, name string, each func(line string) error) error {
	f, err := dir.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(nil, maxLine)
	for in.Scan() {
		if in.Text() == "" {
			continue
		}
		if err := each(in.Text()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
