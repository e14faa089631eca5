package merge

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// accountFiles are merged by line; the value says how a line that both sides
// changed is merged, nil field numbers meaning: the local one stays.
var accountFiles = map[string]*accountFile{
	"passwd":  {},
	"shadow":  {},
	"group":   {members: []int{3}},
	"gshadow": {members: []int{2, 3}},
	"subuid":  {},
	"subgid":  {},
}

// accountFile describes the lines of one account file: fields between colons,
// the first is the key.
type accountFile struct {
	members []int // fields that hold names separated by commas
}

func mergeAccounts(path string, c change) ([]byte, error) {
	format := accountFiles[path]
	base, _ := accountLines(c.base.content)
	running, order := accountLines(c.running.content)
	target, targetOrder := accountLines(c.target.content)
	var out []string
	for _, key := range targetOrder {
		was, had := base[key]
		local, has := running[key]
		fresh := target[key]
		switch {
		case had && !has && fresh == was:
			// Removed locally, untouched by the release.
		case !has || local == was || local == fresh:
			out = append(out, fresh)
		case fresh == was:
			out = append(out, local)
		default:
			out = append(out, format.join(local, fresh))
		}
	}
	for _, key := range order {
		if _, had := base[key]; had {
			continue // not local, or removed by the release
		}
		if _, there := target[key]; !there {
			out = append(out, running[key])
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("nothing would be left of %s", path)
	}
	return []byte(strings.Join(out, "\n") + "\n"), nil
}

// join keeps the local line with the members of both.
func (f *accountFile) join(local, fresh string) string {
	fields, other := strings.Split(local, ":"), strings.Split(fresh, ":")
	for _, i := range f.members {
		if i >= len(fields) || i >= len(other) {
			continue
		}
		names := splitNames(fields[i])
		for _, name := range splitNames(other[i]) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		fields[i] = strings.Join(names, ",")
	}
	return strings.Join(fields, ":")
}

func splitNames(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func accountLines(content []byte) (byKey map[string]string, order []string) {
	byKey = make(map[string]string)
	for line := range strings.Lines(string(content)) {
		line = strings.TrimRight(line, "\n")
		if line == "" {
			continue
		}
		key, _, _ := strings.Cut(line, ":")
		if _, twice := byKey[key]; !twice {
			order = append(order, key)
			byKey[key] = line
		}
	}
	return byKey, order
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
	lines, order := accountLines(content)
	for _, name := range order {
		if fields := strings.Split(lines[name], ":"); len(fields) >= 3 {
			n.byName[name] = fields[2]
			n.order = append(n.order, name)
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
