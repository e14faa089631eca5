package merge

import "strings"

// MergeAccounts merges passwd and shadow.
func MergeAccounts(base, running, target [2]string) (merged [2]string, conflicts int) {
	var sides [2]accountSides
	for i, f := range accountPairs[0] {
		sides[i] = accountSides{f, readAccounts(f, []byte(base[i])), readAccounts(f, []byte(running[i])), readAccounts(f, []byte(target[i]))}
	}
	for i, o := range mergeAccounts(sides[0], sides[1]) {
		merged[i] = strings.Join(o.lines, "\n")
		conflicts += len(o.conflicts)
	}
	return merged, conflicts
}
