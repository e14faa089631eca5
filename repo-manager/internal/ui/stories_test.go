package ui

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/release"
)

// story is one screen with the data that leads to it.
type story struct {
	name   string
	tell   func(w *world)
	method string // GET if empty
	path   string
	form   url.Values
	as     string // user; "" for nobody
	status int    // 200 if zero
	says   []string
	never  []string
}

// base is what Debian brings to every state of the stories.
var base = []string{"debian/base-files=13.8", "debian/libc6=2.41-12", "debian/systemd=257.8-1"}

func with(packages ...string) []string { return append(append([]string{}, base...), packages...) }

// demo is a pipeline in which everything has reached production once, and a
// device runs it.
func demo(w *world) {
	w.create("demo", "dev", "canary", "production")
	w.publish("demo", "ci", "demo-app 1.0 (amd64) into apps", with("apps/demo-app=1.0", "apps/demo-device=1")...)
	w.pass(3 * time.Minute)
	w.promoted("demo", "dev", "canary", "anna", "first release")
	w.pass(20 * time.Minute)
	w.promoted("demo", "canary", "production", "anna", "worked on canary")
	w.pass(time.Minute)
	w.device("demo", "demo", w.report("demo", "production", "1.0"))
	w.pass(40 * time.Second)
}

// report is that of a device which runs what stage offers.
func (w *world) report(pipeline, stage, version string) *protocol.Report {
	for _, s := range w.stages[pipeline] {
		if s.Name == stage {
			return &protocol.Report{
				Follow: stage, Phase: "IDLE", Wanted: s.Offer.State.String(), WantedName: s.Offer.Snapshot,
				Deployments: []protocol.Deployment{{ID: 1, State: s.Offer.State.String(), Snapshot: s.Offer.Snapshot, Role: "booted", Version: version}},
			}
		}
	}
	panic("no stage " + stage)
}

// pending has version 2 on canary, waiting for production, and an upload
// that nobody promoted yet.
func pending(w *world) {
	demo(w)
	w.publish("demo", "ci", "demo-app 2.0 (amd64) into apps", with("apps/demo-app=2.0", "apps/demo-device=1", "apps/demo-tools=0.3")...)
	w.pass(time.Minute)
	w.promoted("demo", "dev", "canary", "bert", "new start screen")
	w.pass(12 * time.Minute)
	w.publish("demo", "ci", "demo-app 2.1~rc1 (amd64) into apps", with("apps/demo-app=2.1~rc1", "apps/demo-device=1", "apps/demo-tools=0.3")...)
	w.device("demo", "demo", w.report("demo", "production", "1.0"))
	w.pass(25 * time.Second)
}

// released has version 2 in production; the device has not got it.
func released(w *world, change func(r *protocol.Report)) {
	pending(w)
	r := w.report("demo", "production", "1.0")
	w.promoted("demo", "canary", "production", "anna", "looks good on canary")
	w.pass(30 * time.Second)
	stage := w.stages["demo"][2]
	r.Wanted, r.WantedName = stage.Offer.State.String(), stage.Offer.Snapshot
	change(r)
	w.device("demo", "demo", r)
	w.pass(4 * time.Second)
}

// hostile is text that must never reach a page as markup.
const hostile = `<script>alert("x")</script><img src=x onerror=alert(1)>'"&` + "\u202e"

func review(w *world, path string, stage int) url.Values {
	s := w.stages["demo"][stage]
	return url.Values{
		"csrf": {"csrf-of-session-of-anna"}, "snapshot": {path}, "reason": {""},
		"expect": {s.Offer.State.String()}, "reviewed": {w.stages["demo"][stage-1].Offer.State.String()},
	}
}

// stories are all screens, as a person may meet them.
func stories() []story { return append(pipelineStories(), fleetStories()...) }

// pipelineStories are those of stages, promotions and people.
func pipelineStories() []story {
	long := strings.Repeat("very-long-", 12)
	return []story{
		{name: "no-pipeline", tell: func(*world) {}, path: "/", as: "anna", says: []string{"There is no pipeline yet", "repo-manager pipeline create"}},
		{name: "two-pipelines", tell: func(w *world) {
			w.create("demo", "dev", "production")
			w.create("kiosk", "dev", "canary", "production")
		}, path: "/", as: "anna", says: []string{"kiosk", "dev → canary → production"}},
		{name: "no-component", tell: func(w *world) { w.create("demo", "dev", "canary", "production"); w.pipelines[0].Components = nil }, path: "/pipelines/demo", as: "anna", says: []string{"repo-manager repository create apps --pipeline demo"}},
		{name: "keyring-only", tell: func(w *world) {
			w.create("demo", "dev", "canary", "production")
			w.publish("demo", "system", "aptfleet-archive-keyring 2026.11.20 (all) into apps", "apps/aptfleet-archive-keyring=2026.11.20")
		}, path: "/pipelines/demo", as: "anna", says: []string{"Upload the first package"}},
		{name: "no-package", tell: func(w *world) { w.create("demo", "dev", "canary", "production") }, path: "/pipelines/demo", as: "anna", says: []string{"Upload the first package", "repo-manager package add apps FILE.deb --pipeline demo", "No device of this pipeline yet", "Nothing has moved yet"}},
		{name: "one-unnamed-state", tell: func(w *world) {
			w.create("demo", "dev", "canary", "production")
			w.publish("demo", "ci", "demo-app 1.0 (amd64) into apps", with("apps/demo-app=1.0")...)
		}, path: "/pipelines/demo", as: "anna", says: []string{"unnamed state", "the first, with 4 packages", "Nothing to promote yet."}},
		{name: "settled", tell: demo, path: "/pipelines/demo", as: "anna", says: []string{"1 ok", "Nothing to promote: production offers the same."}, never: []string{"Review promotion"}},
		{name: "pending", tell: pending, path: "/pipelines/demo", as: "anna", says: []string{"Review promotion", "1 upgraded, 1 new", "demo-app", "2.1~rc1", "new start screen"}},
		{name: "viewer", tell: pending, path: "/pipelines/demo", as: "vera", says: []string{"vera may look, but not move production"}, never: []string{"Review promotion", "Undo…"}},
		{name: "may-move-canary-only", tell: pending, path: "/pipelines/demo", as: "carl", says: []string{"Review promotion", "carl may look, but not move production"}},
		{name: "offered-not-looked", tell: func(w *world) {
			released(w, func(r *protocol.Report) { r.Wanted = r.Deployments[0].State })
		}, path: "/pipelines/demo", as: "anna", says: []string{"1 behind", "it has not looked since this was offered"}},
		{name: "downloading", tell: func(w *world) {
			released(w, func(r *protocol.Report) { r.Phase, r.Progress = "DOWNLOAD", "12 of 40 packages" })
		}, path: "/pipelines/demo", as: "anna", says: []string{"12 of 40 packages", `aria-current="step"`}, never: []string{"Why not:"}},
		{name: "on-trial", tell: func(w *world) {
			released(w, func(r *protocol.Report) {
				r.Phase, r.Progress = "HEALTH", "healthy for 4 of 10 s"
				r.Deployments[0].Role = "rollback"
				r.Deployments = append(r.Deployments, protocol.Deployment{ID: 2, State: r.Wanted, Snapshot: r.WantedName, Role: "trial", Version: "2.0"})
			})
		}, path: "/pipelines/demo", as: "anna", says: []string{"Has on trial", "Trial", "healthy for 4 of 10 s"}},
		{name: "went-back", tell: func(w *world) {
			released(w, func(r *protocol.Report) {
				r.Failed = []protocol.Failure{{State: r.Wanted, Snapshot: r.WantedName, At: w.now, Reason: "required health check 10-demo-app failed 3 times: connection to port 8000 refused"}}
				r.WhyNot = r.WantedName + " failed here: " + r.Failed[0].Reason
				r.LastError = r.WhyNot
			})
		}, path: "/pipelines/demo", as: "anna", says: []string{"1 failed", "failed here:", "required health check 10-demo-app failed"}, never: []string{"Why not:"}},
		{name: "staged", tell: func(w *world) {
			released(w, func(r *protocol.Report) {
				r.Phase, r.WhyNot = "STAGED", "it is staged and waits for the maintenance window at 02:00"
				r.Deployments = append(r.Deployments, protocol.Deployment{ID: 2, State: r.Wanted, Snapshot: r.WantedName, Role: "staged", Version: "2.0"})
			})
		}, path: "/pipelines/demo", as: "anna", says: []string{"1 behind", "waits for the maintenance window at 02:00"}},
		{name: "unsigned-release", tell: func(w *world) {
			demo(w)
			r := w.report("demo", "production", "1.0")
			r.LastError = "cannot trust InRelease: no key of the keyring signed it"
			w.device("demo", "demo", r)
		}, path: "/pipelines/demo", as: "anna", says: []string{"1 ok", "Last problem:", "no key of the keyring signed it"}},
		{name: "went-back-and-undone", tell: func(w *world) {
			demo(w)
			r := w.report("demo", "production", "1.0")
			r.Failed = []protocol.Failure{{State: strings.Repeat("ab", 32), Snapshot: "20261119T080000Z", At: w.now, Reason: "demo-app.service crashed after 20 s"}}
			w.device("demo", "demo", r)
		}, path: "/pipelines/demo", as: "anna", says: []string{"1 ok", "Earlier,", "crashed after 20 s"}},
		{name: "held", tell: func(w *world) {
			released(w, func(r *protocol.Report) { r.WhyNot = "held by maria until Monday: trade fair" })
		}, path: "/pipelines/demo", as: "anna", says: []string{"Why not:", "held by maria until Monday"}},
		{name: "silent-and-new", tell: func(w *world) {
			demo(w)
			w.pass(2 * time.Hour)
			w.device("fresh", "demo", nil)
		}, path: "/pipelines/demo", as: "anna", says: []string{"1 silent", "1 pending", "it has not reported yet", "2 hours ago"}},
		{name: "pinned", tell: func(w *world) {
			pending(w)
			r := w.report("demo", "canary", "2.0")
			r.Follow = "snapshot:" + r.WantedName
			w.device("lab", "demo", r)
		}, path: "/pipelines/demo", as: "anna", says: []string{"follows <strong>its pin"}},
		{name: "many-devices", tell: func(w *world) {
			pending(w)
			for i := range 40 {
				w.device(fmt.Sprintf("kiosk-%02d", i), "demo", w.report("demo", "production", "1.0"))
			}
		}, path: "/pipelines/demo", as: "anna", says: []string{"29 more in the list of all 41 devices", "41 ok"}},
		{name: "change-under-way", tell: func(w *world) {
			w.create("demo", "dev", "canary", "production")
			w.changes = []release.Change{
				{ID: 1, Kind: "mirror-update", Summary: "Update mirror debian", Pipeline: "demo", Status: release.Doing, By: "anna", Created: w.now, Done: 84, Total: 312, Unit: "packages", Log: []string{"fetching systemd 257.8-1"}},
				{ID: 2, Kind: "check", Summary: "Check all files", Pipeline: "demo", Status: release.Doing, By: "anna", Created: w.now, Done: 81_300_000, Unit: "bytes"},
				{ID: 3, Kind: "mirror-update", Summary: "Update mirror extra", Pipeline: "demo", Status: release.Failed, By: "anna", Created: w.now, Finished: w.now, Error: "cannot verify InRelease: no known key signed it"},
			}
		}, path: "/pipelines/demo", as: "anna", says: []string{"84 of 312 packages", "fetching systemd", "81.3 MB", "no known key signed it"}},
		{name: "after-promotion", tell: func(w *world) { released(w, func(*protocol.Report) {}) }, path: "/pipelines/demo?moved=6", as: "anna", says: []string{"now offers", "Its devices follow at their next check", "Undo…"}},
		{name: "notice-forged", tell: pending, path: "/pipelines/demo?moved=999<script>", as: "anna", never: []string{"now offers", "999"}},
		{name: "long-names", tell: func(w *world) {
			w.create("demo", long+"dev", long+"production")
			w.publish("demo", long, long, with("apps/"+long+"=1.0")...)
			w.promoted("demo", long+"dev", long+"production", long, long)
			w.publish("demo", long, strings.Repeat("W", 200), with("apps/"+long+"="+long+"2.0")...)
			w.device(long, "demo", w.report("demo", long+"production", long))
		}, path: "/pipelines/demo", as: "anna", says: []string{long}},
		{name: "hostile", tell: func(w *world) {
			w.roles[hostile] = []string{"admin"}
			w.create("demo", "dev", "production")
			w.pipelines[0].Components[0].Name = hostile
			w.publish("demo", hostile, hostile, "apps/"+hostile+"=1")
			w.promoted("demo", "dev", "production", hostile, hostile)
			w.snapshots[0].Note, w.snapshots[0].Labels = hostile, []string{hostile}
			w.publish("demo", hostile, hostile, "apps/"+hostile+"="+hostile)
			r := w.report("demo", "production", hostile)
			r.WhyNot, r.LastError, r.Progress = hostile, hostile, hostile
			r.Failed = []protocol.Failure{{State: r.Wanted, Reason: hostile, At: w.now}}
			w.device(hostile, "demo", r)
			w.changes = []release.Change{{Summary: hostile, Pipeline: "demo", Status: release.Doing, By: hostile, Log: []string{hostile}, Unit: hostile, Total: 2, Done: 1}}
		}, path: "/pipelines/demo", as: hostile},
		{name: "history", tell: pending, path: "/pipelines/demo/stages/canary", as: "anna", says: []string{"Stage canary", "History of canary", "first release", "new start screen"}},
		{name: "history-empty", tell: func(w *world) { w.create("demo", "dev", "production") }, path: "/pipelines/demo/stages/production", as: "anna", says: []string{"Nothing has moved production yet"}},

		{name: "review", tell: pending, path: "/pipelines/demo/stages/production/promote?snapshot=canary", as: "anna", says: []string{"Promote to production", "1 upgraded", "demo-tools", "One device follows production", `name="reason"`}},
		{name: "review-unnamed", tell: pending, path: "/pipelines/demo/stages/canary/promote?snapshot=dev", as: "anna", says: []string{"Promoting it makes it a snapshot", "No device follows canary yet"}},
		{name: "review-first", tell: func(w *world) {
			w.create("demo", "dev", "production")
			w.publish("demo", "ci", "demo-app 1.0 (amd64) into apps", with("apps/demo-app=1.0")...)
		}, path: "/pipelines/demo/stages/production/promote?snapshot=dev", as: "anna", says: []string{"It gets all 4 packages", `name="expect" value=""`}},
		{name: "review-nothing", tell: demo, path: "/pipelines/demo/stages/production/promote?snapshot=canary", as: "anna", says: []string{"Nothing to promote: production offers this already."}, never: []string{`name="reason"`}},
		{name: "review-500", tell: func(w *world) {
			w.create("demo", "dev", "production")
			var before, after []string
			for i := range 100 {
				before = append(before, fmt.Sprintf("debian/lib-%03d=1.0", i), fmt.Sprintf("debian/old-%03d=1", i), fmt.Sprintf("debian/down-%03d=2:1.0", i))
				after = append(after, fmt.Sprintf("debian/lib-%03d=1.1", i), fmt.Sprintf("debian/new-%03d=1", i), fmt.Sprintf("debian/down-%03d=9.0", i))
			}
			for i := range 100 {
				before = append(before, fmt.Sprintf("debian/more-%03d=1.0-1", i))
				after = append(after, fmt.Sprintf("debian/more-%03d=1.0-1+deb13u1", i))
			}
			w.publish("demo", "ci", "", append(before, "apps/demo-app=1.0")...)
			w.promoted("demo", "dev", "production", "anna", "")
			w.publish("demo", "ci", "", append(after, "apps/demo-app=2.0")...)
		}, path: "/pipelines/demo/stages/production/promote?snapshot=dev", as: "anna", says: []string{"201 upgraded, 100 new, 100 downgraded, 100 gone", "189 more upgraded", "88 more gone"}},
		{name: "review-viewer", tell: pending, path: "/pipelines/demo/stages/production/promote?snapshot=canary", as: "vera", says: []string{"vera may look, but not move production"}, never: []string{`name="reason"`}},
		{name: "review-failed-before", tell: func(w *world) {
			pending(w)
			r := w.report("demo", "production", "1.0")
			r.Failed = []protocol.Failure{{State: w.stages["demo"][1].Offer.State.String(), Reason: "crashed", At: w.now}}
			w.device("demo", "demo", r)
		}, path: "/pipelines/demo/stages/production/promote?snapshot=canary", as: "anna", says: []string{"it failed there before"}},
		{name: "review-undo", tell: pending, path: "/pipelines/demo/stages/canary/undo", as: "anna", says: []string{"Undo the last move of canary", "1 downgraded, 1 gone", "Take canary back"}},
		{name: "undo-nothing", tell: demo, path: "/pipelines/demo/stages/canary/undo", as: "anna", status: 422, says: []string{"it offered nothing else before"}},
		{name: "promote-first-stage", tell: demo, path: "/pipelines/demo/stages/dev/promote?snapshot=canary", as: "anna", status: 422, says: []string{"it follows every upload"}},

		{name: "conflict-stage", tell: func(w *world) {
			pending(w)
			w.promoted("demo", "dev", "production", "bert", "in a hurry")
		}, method: "POST", path: "/pipelines/demo/stages/production/promote", as: "anna", form: func() url.Values {
			w := newWorld()
			pending(w)
			return review(w, "canary", 2)
		}(), status: 409, says: []string{"Something moved meanwhile", "bert", "Review it again"}},
		{name: "conflict-source", tell: func(w *world) {
			pending(w)
			w.publish("demo", "ci", "demo-app 2.1 (amd64) into apps", with("apps/demo-app=2.1")...)
		}, method: "POST", path: "/pipelines/demo/stages/canary/promote", as: "anna", form: func() url.Values {
			w := newWorld()
			pending(w)
			return review(w, "dev", 1)
		}(), status: 409, says: []string{"Something moved meanwhile", "unnamed state", "Review it again"}},
		{name: "forged", tell: pending, method: "POST", path: "/pipelines/demo/stages/production/promote", as: "anna", form: url.Values{"csrf": {"guess"}}, status: 403, says: []string{"it does not belong to this session"}},
		{name: "forbidden", tell: pending, method: "POST", path: "/pipelines/demo/stages/production/promote", as: "vera", form: url.Values{"csrf": {"csrf-of-session-of-vera"}}, status: 403, says: []string{"You may not do this"}},
		{name: "long-reason", tell: pending, method: "POST", path: "/pipelines/demo/stages/production/promote", as: "anna", form: url.Values{"csrf": {"csrf-of-session-of-anna"}, "snapshot": {"canary"}, "reason": {strings.Repeat("é", 501)}}, status: 400, says: []string{"more than 500 characters"}},
		{name: "bad-form", tell: pending, method: "POST", path: "/pipelines/demo/stages/production/promote", as: "anna", form: url.Values{"csrf": {"csrf-of-session-of-anna"}, "snapshot": {"canary"}, "reviewed": {"zzz"}}, status: 400, says: []string{"field reviewed"}},
		{name: "unknown-pipeline", tell: demo, path: "/pipelines/" + url.PathEscape(hostile), as: "anna", status: 404, says: []string{"There is nothing here"}},
		{name: "unknown-stage", tell: demo, path: "/pipelines/demo/stages/nightly", as: "anna", status: 404, says: []string{"Its stages are dev, canary, production."}},
		{name: "unknown-snapshot", tell: demo, path: "/pipelines/demo/stages/canary/promote?snapshot=" + url.QueryEscape(hostile), as: "anna", status: 404},
		{name: "unknown-page", tell: demo, path: "/nowhere", as: "anna", status: 404, says: []string{"Cannot find a page at /nowhere."}},
		{name: "broken", tell: func(w *world) { demo(w); w.broken = errors.New("disk I/O error at /secret/path") }, path: "/pipelines/demo", as: "anna", status: 500, says: []string{"Its log says why"}, never: []string{"secret"}},

		{name: "pipelines-that-may-be-seen", tell: func(w *world) {
			w.create("demo", "dev", "production")
			w.create("kiosk", "dev", "canary", "production")
			w.create("secret", "dev", "production")
			w.roles["vera"] = []string{"viewer:demo", "uploader:kiosk/apps"}
		}, path: "/", as: "vera", says: []string{"demo", "kiosk"}, never: []string{"secret"}},
		{name: "pipeline-not-to-be-seen", tell: func(w *world) {
			demo(w)
			w.roles["vera"] = []string{"viewer:other"}
		}, path: "/pipelines/demo", as: "vera", status: 403, says: []string{"the role viewer:demo is missing"}, never: []string{"demo-app", `href="/pipelines/demo"`}},
		{name: "account", tell: func(*world) {}, path: "/account", as: "anna", says: []string{"Firefox on Linux", "(this one)", "Sign out everywhere", "admin"}},
		{name: "account-hostile", tell: func(w *world) { w.roles[hostile] = []string{"viewer"} }, path: "/account", as: hostile},
		{name: "sign-out-everywhere", tell: func(*world) {}, method: "POST", path: "/account/sign-out", as: "anna", form: url.Values{"csrf": {"guess"}}, status: 403, says: []string{"it does not belong to this session"}},

		{name: "sign-in", tell: func(*world) {}, path: "/login?token=tok-anna", says: []string{"Sign in as anna"}},
		{name: "sign-in-used", tell: func(*world) {}, path: "/login?token=gone", status: 401, says: []string{"This link does not work any more", "repo-manager login-link USER"}},
		{name: "sign-in-needed", tell: demo, path: "/pipelines/demo", status: 401, says: []string{"Please sign in", "repo-manager login-link USER"}, never: []string{"demo-app"}},
		{name: "anonymous-act", tell: pending, method: "POST", path: "/pipelines/demo/stages/production/promote", form: url.Values{}, status: 401, says: []string{"Nothing was done"}},
	}
}
