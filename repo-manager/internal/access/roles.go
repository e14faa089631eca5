package access

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"aptfleet/repo-manager/internal/release"
)

// Allows tells whether roles are enough to act as role within scope:
// "pipeline", "pipeline/name" or "" for the whole server.
func Allows(roles []string, role, scope string) bool {
	return slices.ContainsFunc(roles, func(held string) bool { return includes(held, role, scope) })
}

// AllowsSomewhere tells whether roles are enough to act as role within some
// scope, however narrow.
func AllowsSomewhere(roles []string, role string) bool {
	return slices.ContainsFunc(roles, func(held string) bool {
		_, scope, _ := strings.Cut(held, ":")
		return includes(held, role, scope)
	})
}

// includes tells whether one role that is held is enough to act as role
// within scope.
func includes(held, role, scope string) bool {
	name, within, scoped := strings.Cut(held, ":")
	switch {
	case held == "admin" || !scoped && name == role:
		return true
	case role == "viewer":
		return !scoped || pipelineOf(within) == pipelineOf(scope)
	}
	return name == role && (scope == within || strings.HasPrefix(scope, within+"/"))
}

// pipelineOf is the pipeline of a scope, or "".
func pipelineOf(scope string) string {
	pipeline, _, _ := strings.Cut(scope, "/")
	return pipeline
}

// Common returns the roles that stand for what a and b have in common: they
// allow what both allow, and nothing else. It may be empty.
func Common(a, b []string) []string {
	var common []string
	for _, x := range a {
		for _, y := range b {
			if role := narrower(x, y); role != "" && !covers(common, role) {
				common = slices.DeleteFunc(common, func(other string) bool { return covers([]string{role}, other) })
				common = append(common, role)
			}
		}
	}
	return common
}

// narrower is what two roles have in common, or "". Two that do not include
// each other share at most that both read a pipeline.
func narrower(x, y string) string {
	nameX, scopeX, _ := strings.Cut(x, ":")
	nameY, scopeY, _ := strings.Cut(y, ":")
	switch {
	case includes(x, nameY, scopeY):
		return y
	case includes(y, nameX, scopeX):
		return x
	}
	inX, inY := pipelineOf(scopeX), pipelineOf(scopeY)
	switch {
	case inX == "" && inY == "":
		return "viewer"
	case inX == "" || inX == inY:
		return "viewer:" + inY
	case inY == "":
		return "viewer:" + inX
	}
	return ""
}

// covers tells whether held roles include the role wanted.
func covers(held []string, wanted string) bool {
	name, scope, _ := strings.Cut(wanted, ":")
	return Allows(held, name, scope)
}

var validRole = regexp.MustCompile(`^(admin|(viewer|manufacturing)(:` + pipelinePattern + `)?|(uploader|releaser|operator)(:` + pipelinePattern + `(/[A-Za-z0-9][A-Za-z0-9+._-]*)?)?)$`)

const pipelinePattern = `[a-z][a-z0-9+.-]*`

func checkRoles(verb string, roles []string) error {
	if len(roles) == 0 {
		return &release.Error{Code: release.Invalid, Text: verb + ": it needs a role", Hint: rolesHint}
	}
	for _, r := range roles {
		if !validRole.MatchString(r) {
			return &release.Error{Code: release.Invalid, Text: fmt.Sprintf("%s: %q is no role", verb, r), Hint: rolesHint}
		}
	}
	return nil
}

const rolesHint = "roles are viewer[:pipeline], uploader[:pipeline/repository], releaser[:pipeline/stage], manufacturing[:pipeline], operator[:pipeline/product], admin"
