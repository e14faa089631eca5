package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/release"
)

// authorise tells whether who may use a row, and if not, which role is missing.
func (s *server) authorise(c *gin.Context, who access.Identity, r route) error {
	roles := strings.Split(r.role, or)
	if r.scope == somewhere {
		if slices.ContainsFunc(roles, func(role string) bool { return access.AllowsSomewhere(who.Roles, role) }) {
			return nil
		}
		return missing(who, roles, "")
	}
	if r.scope == inBody {
		scopes, err := scopesInBody(c)
		if err != nil {
			return err
		}
		return may(who, roles, scopes...)
	}
	scope, err := s.scopeOf(c, who, r.scope)
	if err != nil {
		return err
	}
	return may(who, roles, scope)
}

// may tells whether one of the roles covers each scope, and if not, which is
// missing.
func may(who access.Identity, roles []string, scopes ...string) error {
	for _, scope := range scopes {
		if !slices.ContainsFunc(roles, func(role string) bool { return access.Allows(who.Roles, role, scope) }) {
			return missing(who, roles, scope)
		}
	}
	return nil
}

// scopeOf fills a row's scope with what the request is about. What has a name
// of its own on the whole server, and belongs to a pipeline that who must not
// see, is answered like what does not exist.
func (s *server) scopeOf(c *gin.Context, who access.Identity, scope string) (string, error) {
	switch scope {
	case "":
		return "", nil
	case ofChange:
		change, err := s.change(c)
		if err == nil && !sees(who, change.Pipeline) {
			err = noChange(change.ID)
		}
		return change.Pipeline, err
	case ofDevice:
		name := c.Param("d")
		device, err := s.Fleet.Device(c.Request.Context(), name)
		if err == nil && !sees(who, device.Pipeline) {
			err = notFound("repo-manager device list", "device", name)
		}
		return scopeOfDevice(device), err
	case ofConfig:
		names := []string{c.Param("p")}
		switch of := c.Param("of"); c.Param("kind") {
		case "product":
			names = append(names, of)
		case "device":
			// One that is not known, or of another pipeline, is the handler's to
			// refuse.
			if d, err := s.Fleet.Device(c.Request.Context(), of); err == nil && d.Pipeline == names[0] && d.Product != "" {
				names = append(names, d.Product)
			}
		}
		return scopeOfNames(names...)
	case ofSerial:
		serial := c.Param("serial")
		for _, r := range s.Fleet.Registrations(c.Request.Context()) {
			if r.Serial == serial && sees(who, r.Pipeline) {
				return r.Pipeline + "/" + r.Product, nil
			}
		}
		return "", notFound("repo-manager device registered", "registration", serial)
	case ofToken:
		id := c.Param("id")
		for _, t := range s.Fleet.Tokens(c.Request.Context()) {
			if strings.HasPrefix(t.ID(), id) && sees(who, t.Pipeline) {
				return t.Pipeline + "/" + t.Product, nil
			}
		}
		return "", notFound("repo-manager device token list", "enrolment token", id)
	}
	var parts []string
	for name := range strings.SplitSeq(scope, "/") {
		parts = append(parts, c.Param(name))
	}
	return scopeOfNames(parts...)
}

// scopeOfNames joins names to a scope. A name with a slash would pass for two,
// and is one of nothing.
func scopeOfNames(names ...string) (string, error) {
	for _, name := range names {
		if strings.Contains(name, "/") {
			return "", &release.Error{Code: release.NotFound, Text: fmt.Sprintf("cannot find %q: a name has no slash", name)}
		}
	}
	return strings.Join(names, "/"), nil
}

// scopeOfDevice is what a role must cover to act on a device.
func scopeOfDevice(d fleet.Device) string {
	if d.Product == "" {
		return d.Pipeline
	}
	return d.Pipeline + "/" + d.Product
}

// scopesInBody reads what a request's JSON is about, and leaves the body as it
// was for the handler. There is at least one.
func scopesInBody(c *gin.Context) ([]string, error) {
	raw, err := io.ReadAll(http.MaxBytesReader(c.Writer, c.Request.Body, maxJSON))
	if err != nil {
		return nil, err
	}
	c.Request.Body = io.NopCloser(bytes.NewReader(raw))
	type about struct{ Pipeline, Product string }
	var all []about
	if json.NewDecoder(bytes.NewReader(raw)).Decode(&all) != nil || len(all) == 0 {
		all = make([]about, 1)
		if json.NewDecoder(bytes.NewReader(raw)).Decode(&all[0]) != nil {
			// The handler's own reading tells what is wrong with the JSON; until
			// then it is about the whole server.
			all[0] = about{}
		}
	}
	var scopes []string
	for _, one := range all {
		names := []string{one.Pipeline, one.Product}
		if one.Product == "" {
			names = names[:1]
		}
		scope, err := scopeOfNames(names...)
		if err != nil {
			return nil, err
		}
		scopes = append(scopes, scope)
	}
	return scopes, nil
}

// noChange is the engine's answer to a number that no change has.
func noChange(id int64) error {
	return &release.Error{
		Code: release.NotFound, Text: fmt.Sprintf("cannot find change %d: there is none of that number", id), Hint: "repo-manager changes",
	}
}

// sees tells whether who may read a pipeline; "" stands for what belongs to
// none or to all of them.
func sees(who access.Identity, pipeline string) bool {
	return access.Allows(who.Roles, viewer, pipeline)
}

// seen returns those things of a list whose pipeline who may read.
func seen[T any](who access.Identity, all []T, pipeline func(T) string) []T {
	return slices.DeleteFunc(slices.Clone(all), func(v T) bool { return !sees(who, pipeline(v)) })
}

// missing is the error that names the roles of which one would be enough.
func missing(who access.Identity, roles []string, scope string) error {
	lacks := make([]string, len(roles))
	for i, role := range roles {
		lacks[i] = role + scopeFor(role, scope)
	}
	hint := fmt.Sprintf("an admin gives it with: repo-manager user set %s --role %s", who.User, printable(strings.Join(append(slices.Clone(who.Roles), lacks[0]), ",")))
	if strings.HasPrefix(who.Via, "token:") {
		hint = fmt.Sprintf("a token has what it was made with and its user still has; an admin makes another with: repo-manager token create %s --role %s", who.User, printable(lacks[0]))
	}
	return &release.Error{
		Code: release.Forbidden,
		Text: fmt.Sprintf("cannot do this as %s: the role %s is missing", who.User, printable(strings.Join(lacks, " or "))),
		Hint: hint,
	}
}

// scopeFor is as much of a scope as a role can be narrowed to, with its colon.
func scopeFor(role, scope string) string {
	switch role {
	case admin:
		return ""
	case viewer, manufacturing:
		scope, _, _ = strings.Cut(scope, "/")
	}
	if scope == "" {
		return ""
	}
	return ":" + scope
}
