package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"aptfleet/device-updater/internal/merge"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/term"
)

// unresolved takes the conflicts out of e that somebody has resolved since: the
// release's version lies beside the file no more.
func (p *program) unresolved(e *update.Etc) {
	if e == nil {
		return
	}
	etc := filepath.Join(p.sysroot, "deployments", strconv.Itoa(e.Deployment), "etc")
	e.Conflicts = slices.DeleteFunc(e.Conflicts, func(c merge.Conflict) bool {
		_, err := os.Lstat(filepath.Join(etc, c.Beside))
		return c.Beside != "" && os.IsNotExist(err)
	})
}

// etcLines are what people read about the files of this machine. Their names are
// anybody's.
func etcLines(v update.View) string {
	var b strings.Builder
	if v.Etc != nil {
		for i, c := range v.Etc.Conflicts {
			if i == shown {
				fmt.Fprintf(&b, "         and %d more: device-updater status --json\n", len(v.Etc.Conflicts)-shown)
				break
			}
			fmt.Fprintf(&b, "conflict %s\n", term.Printable(conflictText(c)))
		}
	}
	if x := v.Verified; x != nil {
		found := "equal to its release"
		if !x.Equal {
			found = fmt.Sprintf("not equal to its release (files changed: %d, of no package: %d): device-updater verify", x.Damage, x.Unowned)
		}
		fmt.Fprintf(&b, "verified %s, %s\n", x.At.UTC().Format(time.RFC3339), found)
	}
	for _, k := range v.Edits {
		fmt.Fprintf(&b, "edits    deployment %d was given up at %s with changes of /etc (%d changed, %d deleted): they lie in %s\n",
			k.Deployment, k.At.UTC().Format(time.RFC3339), len(k.Changed), len(k.Deleted), k.Files)
	}
	return b.String()
}

// collided says what happened to a path, and what stands.
var collided = map[merge.Kind]string{
	merge.Edited:     "changed here and by the release; what is here stays",
	merge.Deleted:    "deleted here and changed by the release; it stays deleted",
	merge.Dropped:    "changed here and deleted by the release; it stays",
	merge.Attributes: "mode, owner or attributes were changed here and by the release; those of here stay",
	merge.Gone:       "the alternative that was chosen here is not in the release, whose choice stands",
	merge.Unresolved: "not resolved since an earlier release",
}

// conflictText is a conflict in a sentence, with what to do.
func conflictText(c merge.Conflict) string {
	text := "/etc/" + c.Path
	if c.Account != "" {
		text += ", " + c.Account
	}
	text += ": " + collided[c.Kind]
	if c.Beside != "" {
		text += "; the release's version is /etc/" + c.Beside + ": merge it, or delete it"
	}
	return text
}
