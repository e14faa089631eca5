package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

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

// etcFacts are what people read about the files of this machine. Their names are
// anybody's.
func (v statusView) etcFacts(io *term.IO) (attention, fine []term.Fact) {
	if x := v.Verified; x != nil && x.Equal {
		fine = append(fine, term.Fact{Name: "verified", Value: io.When(x.At) + ", equal to its release"})
	} else if x != nil {
		attention = append(attention, term.Fact{Name: "verified", Value: fmt.Sprintf("%s, not equal to its release (files changed: %d, of no package: %d); `device-updater verify` names them", io.When(x.At), x.Damage, x.Unowned)})
	}
	if v.Etc != nil {
		var conflicts []term.Fact
		beside := false
		for _, c := range v.Etc.Conflicts {
			conflicts = append(conflicts, term.Fact{Name: "conflict", Value: conflictText(c)})
			beside = beside || c.Beside != ""
		}
		attention = append(attention, abridged(conflicts, everything)...)
		if beside {
			attention = append(attention, term.Fact{Value: "merge the release's version into the file that stayed, or delete it"})
		}
	}
	for _, k := range v.Edits {
		attention = append(attention, term.Fact{Name: "edits", Value: fmt.Sprintf("deployment %d was given up %s with changes of /etc (%d changed, %d deleted): they lie in %s",
			k.Deployment, io.When(k.At), len(k.Changed), len(k.Deleted), k.Files)})
	}
	return attention, fine
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

// conflictText is a conflict in a sentence.
func conflictText(c merge.Conflict) string {
	text := "/etc/" + c.Path
	if c.Account != "" {
		text += ", " + c.Account
	}
	text += ": " + collided[c.Kind]
	if c.Beside != "" {
		text += " (the release's: /etc/" + c.Beside + ")"
	}
	return text
}
