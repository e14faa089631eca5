package api

import (
	"context"

	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
)

func (w *world) User(_ context.Context, name string) (access.User, error) {
	return access.User{Name: name, Roles: []string{"viewer"}, Created: noon}, w.err
}
func (w *world) SetUser(_ context.Context, a release.Actor, name string, change access.UserChange) (access.Outcome, error) {
	w.changed = change
	return access.Outcome{User: access.User{Name: name, Roles: change.Roles, Created: noon}, Ended: access.Ended{Tokens: 2, Sessions: 1}, NoAdmin: true}, w.act(a)
}
func (w *world) DeleteUser(_ context.Context, a release.Actor, name string, dryRun bool) (access.Outcome, error) {
	if dryRun {
		return access.Outcome{User: access.User{Name: name}}, w.err
	}
	return access.Outcome{User: access.User{Name: name}}, w.act(a)
}
func (w *world) Sessions(context.Context) ([]access.Session, error) {
	return []access.Session{{ID: 3, User: "ada", Created: noon, Expires: noon.Add(access.SessionLife), From: access.Origin{Address: "10.0.0.7", Browser: "Firefox"}}}, w.err
}
func (w *world) SessionsOf(ctx context.Context, _ string) ([]access.Session, error) {
	return w.Sessions(ctx)
}
func (w *world) EndSessionByID(_ context.Context, a release.Actor, _ int64) error { return w.act(a) }
func (w *world) EndSessionsOf(_ context.Context, a release.Actor, _ string) (int, error) {
	return 2, w.act(a)
}
func (w *world) Record(_ context.Context, a release.Actor, verb, object, detail string) error {
	w.recorded = verb + " " + object + " " + detail
	return w.act(a)
}
func (w *world) FindActs(_ context.Context, filter release.ActFilter) ([]release.Act, error) {
	w.sought = filter
	return []release.Act{{At: noon, By: "ada", Via: "socket", Verb: "promote", Pipeline: "demo", Object: "stage canary", Detail: "fine"}}, w.err
}
