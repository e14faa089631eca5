package merge

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// accountFile describes the lines of one account file: fields between colons,
// the first is the name (passwd(5), shadow(5), group(5), gshadow(5), subuid(5)).
type accountFile struct {
	name    string
	fields  int   // of a line that is as it should be; 0: a name has several lines, each is one thing
	members []int // fields that hold names separated by commas
}

// accountPairs are merged together: the first says which accounts there are,
// the second has their secrets.
var accountPairs = [][2]accountFile{
	{{name: "passwd", fields: 7}, {name: "shadow", fields: 9}},
	{{name: "group", fields: 4, members: []int{3}}, {name: "gshadow", fields: 4, members: []int{2, 3}}},
	{{name: "subuid"}, {name: "subgid"}},
}

// accounts merges the account files by line.
func (m *merger) accounts() error {
	local, err := allNumbers(m.running)
	if err != nil {
		return err
	}
	release, err := allNumbers(m.target)
	if err != nil {
		return err
	}
	localRanges, err := allRanges(m.running)
	if err != nil {
		return err
	}
	releaseRanges, err := allRanges(m.target)
	if err != nil {
		return err
	}
	for _, pair := range accountPairs {
		if err := m.accountPair(pair[0], pair[1]); err != nil {
			return fmt.Errorf("cannot merge %s and %s: %w", pair[0].name, pair[1].name, err)
		}
	}
	if err := checkAccounts(m.target, local, release); err != nil {
		return err
	}
	return checkRanges(m.target, localRanges, releaseRanges)
}

func (m *merger) accountPair(main, second accountFile) error {
	var trees [2]change
	var sides [2]accountSides
	changed := false
	for i, f := range []accountFile{main, second} {
		c, err := m.load(f.name)
		if err != nil {
			return err
		}
		if !c.byLine() {
			continue // it is merged as a file like any other
		}
		changed = changed || !c.base.equal(c.running)
		trees[i] = c
		sides[i] = accountSides{
			format: f, base: readAccounts(f, c.base.content), running: readAccounts(f, c.running.content), target: readAccounts(f, c.target.content),
		}
	}
	if !changed {
		return nil
	}
	outcome := mergeAccounts(sides[0], sides[1])
	for i, f := range []accountFile{main, second} {
		if trees[i].target.kind == absent {
			continue
		}
		m.done[f.name] = true
		for _, name := range outcome[i].conflicts {
			m.conflict(Conflict{Path: f.name, Account: name.name, Kind: name.kind})
		}
		if err := m.putAccounts(f, trees[i], outcome[i].lines); err != nil {
			return err
		}
	}
	return nil
}

// byLine reports whether the three sides can be merged by line: the release and
// the machine have the file.
func (c change) byLine() bool {
	return c.running.kind == unix.S_IFREG && c.target.kind == unix.S_IFREG && (c.base.kind == unix.S_IFREG || c.base.kind == absent)
}

// putAccounts writes what was merged, if that differs from what is there.
func (m *merger) putAccounts(f accountFile, c change, lines []string) error {
	if c.base.kind == absent {
		c.base.mode, c.base.uid, c.base.gid, c.base.xattrs = c.target.mode, c.target.uid, c.target.gid, c.target.xattrs
	}
	merged, kind := c.pieces()
	if kind == Attributes {
		m.conflict(Conflict{Path: f.name, Kind: kind})
	}
	fresh := splitLines(c.target.content)
	if f.name == "passwd" && slices.ContainsFunc(fresh, isRoot) && !slices.ContainsFunc(lines, isRoot) {
		return errors.New("root would be missing")
	}
	if merged.content = c.target.content; !slices.Equal(lines, fresh) {
		merged.content = joinLines(lines)
	}
	if merged.equal(c.target) {
		return nil
	}
	m.taken(f.name)
	return m.put(f.name, merged)
}

func isRoot(line string) bool { return strings.HasPrefix(line, "root:") }

func joinLines(lines []string) []byte {
	if len(lines) == 0 {
		return []byte{}
	}
	return []byte(strings.Join(lines, "\n") + "\n")
}

// splitLines leaves out empty ones.
func splitLines(content []byte) []string {
	return slices.DeleteFunc(strings.Split(string(content), "\n"), func(l string) bool { return l == "" })
}

// accountLines are the lines of a file by key, and the keys in their order.
type accountLines struct {
	lines map[string]string
	order []string
}

// wholeLine begins a key that is a line: no name begins like that.
const wholeLine = "\n"

// readAccounts gives each line a key: its name; where that says too little, or
// comes a second time, the line itself. No line is lost.
func readAccounts(f accountFile, content []byte) accountLines {
	a := accountLines{lines: make(map[string]string)}
	for _, line := range splitLines(content) {
		key, _, _ := strings.Cut(line, ":")
		if _, twice := a.lines[key]; twice || f.fields == 0 || strings.Count(line, ":")+1 != f.fields {
			key = wholeLine + line
		}
		if _, twice := a.lines[key]; !twice {
			a.order = append(a.order, key)
		}
		a.lines[key] = line
	}
	return a
}

// accountSides are one account file on the three sides.
type accountSides struct {
	format                accountFile
	base, running, target accountLines
}

// names are those of the release in its order, then those that only the machine
// has.
func (s accountSides) names() []string {
	names := slices.Clone(s.target.order)
	for _, name := range s.running.order {
		if _, there := s.target.lines[name]; !there {
			names = append(names, name)
		}
	}
	return names
}

func (s accountSides) has(name string) (base, running, target bool) {
	_, base = s.base.lines[name]
	_, running = s.running.lines[name]
	_, target = s.target.lines[name]
	return base, running, target
}

func (s accountSides) changedHere(name string) bool {
	return s.base.lines[name] != s.running.lines[name]
}
func (s accountSides) changedThere(name string) bool {
	return s.base.lines[name] != s.target.lines[name]
}

// fate says whether an account is in the result, and in which way both sides
// had to do with its end.
type fate struct {
	stays    bool
	conflict Kind
}

// decide says what becomes of the account name, to which the files belong. What
// was deleted here stays deleted, what was changed here stays.
func decide(name string, main accountSides, all ...accountSides) fate {
	base, running, target := main.has(name)
	here := slices.ContainsFunc(all, func(s accountSides) bool { return s.changedHere(name) })
	there := slices.ContainsFunc(all, func(s accountSides) bool { return s.changedThere(name) })
	switch {
	case running && target, !base:
		return fate{stays: running || target}
	case running && here: // deleted by the release
		return fate{stays: true, conflict: Dropped}
	case target && there: // deleted here
		return fate{conflict: Deleted}
	}
	return fate{}
}

// accountConflict is one line that both sides had to do with.
type accountConflict struct {
	name string
	kind Kind
}

// accountOutcome is one merged file.
type accountOutcome struct {
	lines     []string
	conflicts []accountConflict
}

// mergeAccounts merges two files of the same accounts. A name of the second that
// the first has on no side is judged for itself.
func mergeAccounts(main, second accountSides) (outcome [2]accountOutcome) {
	known := make(map[string]bool)
	if main.format.fields > 0 {
		for _, side := range []accountLines{main.base, main.running, main.target} {
			for _, name := range side.order {
				known[name] = !strings.HasPrefix(name, wholeLine)
			}
		}
	}
	for i, s := range []accountSides{main, second} {
		for _, name := range s.names() {
			f := decide(name, s, s)
			if known[name] {
				// Where both sides had to do with its end, the two files go
				// together, and it is told once; but no line of here goes.
				_, here, _ := s.has(name)
				if account := decide(name, main, main, second); i == 0 || account.conflict == Dropped && here || account.conflict == Deleted && !here {
					f = account
				}
			}
			if f.conflict != "" && (i == 0 || !known[name]) {
				outcome[i].conflicts = append(outcome[i].conflicts, accountConflict{label(name), f.conflict})
			}
			if !f.stays {
				continue
			}
			line, collided := s.line(name)
			if line != "" {
				outcome[i].lines = append(outcome[i].lines, line)
			}
			if collided {
				outcome[i].conflicts = append(outcome[i].conflicts, accountConflict{label(name), Edited})
			}
		}
	}
	return outcome
}

// label is the account that a key is of.
func label(key string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(key, wholeLine), ":")
	return name
}

// line merges the lines of an account that stays, field by field; what both
// changed is as here. It is "" if this file has no line of it any more.
func (s accountSides) line(name string) (line string, collided bool) {
	base, running, target := s.has(name)
	was, here, there := s.base.lines[name], s.running.lines[name], s.target.lines[name]
	switch {
	case !running && !target:
		return "", false
	case !running && base && there == was:
		return "", false // deleted here
	case !running:
		return there, false
	case !target, here == there, base && there == was:
		return here, false
	case base && here == was:
		return there, false
	}
	split := func(line string) []string {
		return append(strings.Split(line, ":"), make([]string, s.format.fields)...)[:s.format.fields]
	}
	old, fields, fresh := split(was), split(here), split(there)
	for i := range fields {
		switch {
		case slices.Contains(s.format.members, i):
			fields[i] = mergeNames(old[i], fields[i], fresh[i])
		case fields[i] == fresh[i], base && fresh[i] == old[i]:
		case base && fields[i] == old[i]:
			fields[i] = fresh[i]
		default:
			collided = true
		}
	}
	return strings.Join(fields, ":"), collided
}

// mergeNames merges lists of names: those of here, with what the release added
// and without what it took away.
func mergeNames(was, here, there string) string {
	old, fresh := splitNames(was), splitNames(there)
	names := slices.DeleteFunc(splitNames(here), func(name string) bool {
		return slices.Contains(old, name) && !slices.Contains(fresh, name)
	})
	for _, name := range fresh {
		if !slices.Contains(old, name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

func splitNames(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// numbers are the names of one account file with the number of each.
type numbers struct {
	byName map[string]string
	order  []string
}

// numberedFiles are the account files in which a name has a number.
var numberedFiles = []string{"passwd", "group"}

func loadNumbers(tree, file string) (numbers, error) {
	content, err := os.ReadFile(filepath.Join(tree, file))
	if err != nil && !os.IsNotExist(err) {
		return numbers{}, err
	}
	n := numbers{byName: make(map[string]string)}
	for _, line := range splitLines(content) {
		fields := strings.Split(line, ":")
		if len(fields) < 3 {
			continue
		}
		if _, twice := n.byName[fields[0]]; !twice {
			n.byName[fields[0]] = fields[2]
			n.order = append(n.order, fields[0])
		}
	}
	return n, nil
}

// share reports whether two names have one number.
func (n numbers) share(a, b string) bool {
	x, hasA := n.byName[a]
	y, hasB := n.byName[b]
	return hasA && hasB && x == y
}

// allNumbers loads the numbered files of a tree.
func allNumbers(tree string) (map[string]numbers, error) {
	all := make(map[string]numbers)
	for _, file := range numberedFiles {
		n, err := loadNumbers(tree, file)
		if err != nil {
			return nil, err
		}
		all[file] = n
	}
	return all, nil
}

// checkAccounts refuses a merged tree in which two names share a number that
// they share on neither side: a local account and one of the release got the
// same. What one side shares, it shares by intent (useradd --non-unique).
func checkAccounts(merged string, sides ...map[string]numbers) error {
	for _, file := range numberedFiles {
		now, err := loadNumbers(merged, file)
		if err != nil {
			return err
		}
		owners := make(map[string][]string)
		for _, name := range now.order {
			number := now.byName[name]
			for _, other := range owners[number] {
				intended := func(side map[string]numbers) bool { return side[file].share(name, other) }
				if !slices.ContainsFunc(sides, intended) {
					return fmt.Errorf("cannot merge %s: %s and %s would both have number %s", file, other, name, number)
				}
			}
			owners[number] = append(owners[number], name)
		}
	}
	return nil
}

// numberRange are the numbers that one line of subuid or subgid gives to an
// account, from first to before end.
type numberRange struct {
	name       string
	first, end uint64
}

func (r numberRange) overlaps(o numberRange) bool { return r.first < o.end && o.first < r.end }

// rangeFiles are the account files with ranges of numbers.
var rangeFiles = []string{"subuid", "subgid"}

// loadRanges returns the ranges of a file that can be read.
func loadRanges(tree, file string) ([]numberRange, error) {
	content, err := os.ReadFile(filepath.Join(tree, file))
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	var all []numberRange
	for _, line := range splitLines(content) {
		fields := strings.Split(line, ":")
		if len(fields) != 3 {
			continue
		}
		first, err := strconv.ParseUint(fields[1], 10, 32)
		count, err2 := strconv.ParseUint(fields[2], 10, 32)
		if err == nil && err2 == nil {
			all = append(all, numberRange{fields[0], first, first + count})
		}
	}
	slices.SortFunc(all, func(a, b numberRange) int { return cmp.Compare(a.first, b.first) })
	return all, nil
}

// allRanges loads the files with ranges of a tree.
func allRanges(tree string) (map[string][]numberRange, error) {
	all := make(map[string][]numberRange)
	for _, file := range rangeFiles {
		r, err := loadRanges(tree, file)
		if err != nil {
			return nil, err
		}
		all[file] = r
	}
	return all, nil
}

// checkRanges refuses a merged tree in which two accounts share numbers that
// they share on neither side.
func checkRanges(merged string, sides ...map[string][]numberRange) error {
	for _, file := range rangeFiles {
		now, err := loadRanges(merged, file)
		if err != nil {
			return err
		}
		for i, a := range now {
			for _, b := range now[i+1:] {
				if b.first >= a.end {
					break
				}
				intended := func(side map[string][]numberRange) bool {
					return slices.Contains(side[file], a) && slices.Contains(side[file], b)
				}
				if a.name != b.name && a.overlaps(b) && !slices.ContainsFunc(sides, intended) {
					return fmt.Errorf("cannot merge %s: %s and %s would share numbers from %d", file, a.name, b.name, b.first)
				}
			}
		}
	}
	return nil
}
