package rootfs

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// stateConf holds what packages declare to outlive releases: lines of words,
// '#' for comments.
//
//	path PATH              a directory that is kept over releases
//	unit NAME EPOCH PATH…  data of one format, within such directories
//
// PATH is absolute and has no blanks. EPOCH is a number that grows when an
// older release could not read the data any more.
const stateConf = "usr/lib/aptfleet/state.d/*.conf"

// Unit is data with a format: a release that declares another epoch does not
// read what this one wrote.
type Unit struct {
	Name  string   `json:"name"`
	Epoch int      `json:"epoch"`
	Paths []string `json:"paths"` // absolute, sorted; none lies within another unit's
}

// Declared is what the packages of one deployment say of the state.
type Declared struct {
	Paths []string // directories that outlive releases besides the usual ones, sorted
	Units []Unit   // sorted by name

	places map[string]string // path of a unit → where it lies below the top level
}

// ReadDeclared reads the declarations in root. What is right is returned beside
// an error that names everything that is wrong.
func ReadDeclared(root string) (Declared, error) {
	files, err := filepath.Glob(filepath.Join(root, stateConf))
	if err != nil {
		return Declared{}, err
	}
	d := Declared{places: make(map[string]string)}
	var units []Unit
	var wrong []error
	for _, file := range files {
		err := readDeclarations(file, func(words []string) error {
			switch {
			case words[0] == "path" && len(words) == 2:
				if err := checkStatePath(root, words[1]); err != nil {
					return err
				}
				d.Paths = append(d.Paths, words[1])
				return nil
			case words[0] == "unit" && len(words) > 3:
				u, err := parseUnit(words[1:])
				units = append(units, u)
				return err
			}
			return errors.New("it is neither `path PATH` nor `unit NAME EPOCH PATH…`")
		})
		if err != nil {
			wrong = append(wrong, err)
		}
	}
	// Within the usual directories everything outlives releases anyway.
	d.Paths = slices.DeleteFunc(d.Paths, func(p string) bool {
		return slices.ContainsFunc(stateDirs, func(s stateDir) bool { return within(p, "/"+s.path) })
	})
	slices.Sort(d.Paths)
	d.Paths = slices.Compact(d.Paths)
	for _, u := range units {
		if u.Name == "" {
			continue // said already
		}
		if err := d.add(root, u); err != nil {
			wrong = append(wrong, fmt.Errorf("state unit %s: %w", u.Name, err))
		}
	}
	slices.SortFunc(d.Units, func(a, b Unit) int { return strings.Compare(a.Name, b.Name) })
	if len(wrong) > 0 {
		return d, fmt.Errorf("cannot tell what outlives releases: %w", errors.Join(wrong...))
	}
	return d, nil
}

// readDeclarations calls each with the words of every line; its errors are
// collected and name file and line.
func readDeclarations(file string, each func(words []string) error) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	var wrong []error
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if err := each(words); err != nil {
			wrong = append(wrong, fmt.Errorf("%s:%d: %q: %w", filepath.Base(file), n, strings.Join(words, " "), err))
		}
	}
	return errors.Join(append(wrong, lines.Err())...)
}

// unitName keeps names apart from what is beside them in directories.
var unitName = regexp.MustCompile(`^[a-z0-9][a-z0-9_+-]{0,63}$`)

func parseUnit(words []string) (Unit, error) {
	if !unitName.MatchString(words[0]) {
		return Unit{}, errors.New("the name is not of a-z, 0-9, _, + and -")
	}
	epoch, err := strconv.Atoi(words[1])
	if err != nil || epoch < 0 || epoch > 1<<30 || strconv.Itoa(epoch) != words[1] {
		return Unit{}, errors.New("the epoch is not a number")
	}
	u := Unit{Name: words[0], Epoch: epoch, Paths: words[2:]}
	slices.Sort(u.Paths)
	return u, nil
}

// add takes a unit in, if its paths are state and of no other unit.
func (d *Declared) add(root string, u Unit) error {
	if slices.ContainsFunc(d.Units, func(o Unit) bool { return o.Name == u.Name }) {
		return errors.New("it is declared twice")
	}
	places := make(map[string]string)
	for _, p := range u.Paths {
		place, err := d.place(root, p)
		if err != nil {
			return err
		}
		for _, known := range []map[string]string{d.places, places} {
			for other := range known {
				if within(p, other) || within(other, p) {
					return fmt.Errorf("%s and %s are one within the other", p, other)
				}
			}
		}
		places[p] = place
	}
	for p, place := range places {
		d.places[p] = place
	}
	d.Units = append(d.Units, u)
	return nil
}

// place returns where a path of a unit lies below the top level.
func (d *Declared) place(root, p string) (string, error) {
	if err := plainWay(root, p); err != nil {
		return "", err
	}
	for _, s := range stateDirs {
		if within(p, "/"+s.path) && p != "/"+s.path {
			if s.path == "var/lib" && releaseOwns(strings.TrimPrefix(p, "/var/lib/")) {
				return "", fmt.Errorf("%s belongs to the release", p)
			}
			return path.Join("state", s.name, strings.TrimPrefix(p, "/"+s.path)), nil
		}
	}
	// Of two directories one within the other, the inner one is mounted last.
	for _, dir := range slices.Backward(d.Paths) {
		if within(p, dir) {
			return path.Join("state", placeName(dir), strings.TrimPrefix(p, dir)), nil
		}
	}
	return "", fmt.Errorf("%s does not outlive releases: it is not within a directory of the state", p)
}

// releaseOwns reports whether a name within /var/lib is one of those that belong to
// every release, or is around one.
func releaseOwns(name string) bool {
	for _, pattern := range releaseDirs {
		for p := name; p != "."; p = path.Dir(p) {
			if ok, err := path.Match(pattern, p); err == nil && ok {
				return true
			}
		}
		if within("/"+pattern, "/"+name) {
			return true
		}
	}
	return false
}

// notState are directories that a release or the kernel needs as they are.
var notState = []string{
	"/bin", "/boot", "/boot-control", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run", "/sbin", "/sys", "/sysroot", "/tmp", "/usr",
}

// checkStatePath refuses what cannot be mounted from the state.
func checkStatePath(root, p string) error {
	if err := plainWay(root, p); err != nil {
		return err
	}
	if info, err := os.Lstat(filepath.Join(root, p)); err == nil && !info.IsDir() {
		return errors.New("it is not a directory")
	}
	for _, s := range stateDirs {
		if within(p, "/"+s.path) {
			return nil
		}
		if within("/"+s.path, p) {
			return fmt.Errorf("the release has files of its own there, beside /%s", s.path)
		}
	}
	if p == "/" || p == "/opt" {
		return errors.New("the release has files of its own there")
	}
	for _, dir := range notState {
		if within(p, dir) {
			return fmt.Errorf("the release or the kernel needs %s as it is", dir)
		}
	}
	return nil
}

// plainWay refuses a path that is not absolute and clean, and one that leads
// through a symbolic link.
func plainWay(root, p string) error {
	if !path.IsAbs(p) || path.Clean(p) != p {
		return errors.New("it is not a clean absolute path")
	}
	for dir := p; dir != "/"; dir = path.Dir(dir) {
		if info, err := os.Lstat(filepath.Join(root, dir)); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			return fmt.Errorf("%s is a symbolic link", dir)
		}
	}
	return nil
}

// within reports whether p is dir or below it.
func within(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

// placeName is the name that a directory of the running system has below state/:
// no two have the same. It is that of systemd-escape(1) for paths.
func placeName(p string) string {
	var b strings.Builder
	for i, c := range []byte(strings.TrimPrefix(p, "/")) {
		switch {
		case c == '/':
			b.WriteByte('-')
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == ':', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}
