package release_test

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// trixie is one suite of a mirror.
func trixie() release.MirrorSuite {
	return release.MirrorSuite{URL: "https://mirror.example/debian", Suite: "trixie", Components: []string{"main"}, Keyring: []byte("k")}
}

func TestMirrorsThatCannotBe(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for says, spoil := range map[string]func(*release.MirrorConfig){
			"it has no suite":              func(m *release.MirrorConfig) { m.Suites = nil },
			"it has no URL":                func(m *release.MirrorConfig) { m.Suites[0].URL = "" },
			"it has no upstream component": func(m *release.MirrorConfig) { m.Suites[0].Components = nil },
			"it has no keyring": func(m *release.MirrorConfig) {
				m.Suites = append(m.Suites, release.MirrorSuite{URL: "u", Suite: "s", Components: []string{"c"}})
			},
			"is named twice":        func(m *release.MirrorConfig) { m.Suites = append(m.Suites, m.Suites[0]) },
			"it wants no package":   func(m *release.MirrorConfig) { m.Packages = nil },
			"it takes all packages": func(m *release.MirrorConfig) { m.All = true },
			"it has no filter":      func(m *release.MirrorConfig) { m.FilterDeps = true },
		} {
			config := release.MirrorConfig{Suites: []release.MirrorSuite{trixie()}, Packages: []string{"hello"}}
			spoil(&config)
			_, err := w.CreateMirror(t.Context(), ann, "demo", "debian", config)
			wantCode(t, err, release.Invalid, "cannot create mirror debian: ", says)
			_, err = w.SetMirror(t.Context(), ann, "demo", "debian", config, false)
			wantCode(t, err, release.Invalid, "cannot change mirror debian", says)
		}
	})
}

// A change of a mirror is kept and audited, and changes no state.
func TestSetMirror(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		config := release.MirrorConfig{Suites: []release.MirrorSuite{trixie()}, Packages: []string{"hello", "apt"}}
		_, err := w.CreateMirror(t.Context(), ann, "demo", "debian", config)
		must(t, err)
		before := w.stage("dev")
		acts := func() []release.Act {
			t.Helper()
			acts, err := w.Acts(t.Context(), "demo", 0)
			must(t, err)
			return acts
		}
		known := len(acts())

		updates := trixie()
		updates.Suite, updates.Priority = "trixie-updates", 2
		for _, step := range []struct {
			change func(m *release.MirrorConfig)
			detail string // "" is no act
		}{
			{func(m *release.MirrorConfig) {}, ""},
			{func(m *release.MirrorConfig) { m.Packages = []string{"nginx", "apt"} }, "packages +nginx -hello"},
			{func(m *release.MirrorConfig) { m.Suites = append(m.Suites, updates) },
				"suites https://mirror.example/debian trixie main, https://mirror.example/debian trixie-updates main (priority 2)"},
			{func(m *release.MirrorConfig) { m.Suites[0].Keyring = []byte("other") }, "keyrings"},
			{func(m *release.MirrorConfig) { m.Filter, m.FilterDeps, m.Recommends = "Section (net)", true, true },
				"filter: Section (net); dependencies of the filter: true; recommends: true"},
			{func(m *release.MirrorConfig) { m.Packages = strings.Split(strings.Repeat("x ", 21)+"apt", " ") }, ""},
		} {
			before := config
			config.Suites = append([]release.MirrorSuite(nil), config.Suites...)
			step.change(&config)
			would, err := w.SetMirror(t.Context(), ann, "demo", "debian", config, true)
			must(t, err)
			if p, err := w.Pipeline(t.Context(), "demo"); err != nil || !reflect.DeepEqual(*p.Components[1].Mirror, before) || !reflect.DeepEqual(*would.Mirror, config) {
				t.Errorf("a dry run answers %+v, %v; the mirror is then %+v", would.Mirror, err, p.Components[1].Mirror)
			}
			_, err = w.SetMirror(t.Context(), ann, "demo", "debian", config, false)
			must(t, err)
			now := acts()
			switch {
			case step.detail != "" && (len(now) != known+1 || now[0].Verb != "set" || now[0].Object != "mirror debian" || now[0].By != "ann" || now[0].Detail != step.detail):
				t.Errorf("%d acts more, the last is %+v, want %q", len(now)-known, now[0], step.detail)
			case step.detail == "" && len(now) > known && !strings.HasSuffix(now[0].Detail, "+another 1 -nginx"):
				t.Errorf("act %+v", now[0])
			}
			known = len(now)
		}
		if w.stage("dev").Standing != before.Standing {
			t.Error("the change of a mirror moved a stage")
		}
		w.close()
		w.open()
		p, err := w.Pipeline(t.Context(), "demo")
		must(t, err)
		if got := *p.Components[1].Mirror; !reflect.DeepEqual(got, config) {
			t.Errorf("after a restart it is %+v, want %+v", got, config)
		}
		_, err = w.SetMirror(t.Context(), ann, "demo", "other", config, true)
		wantCode(t, err, release.NotFound, "other")
		_, err = w.SetMirror(t.Context(), ann, "demo", "apps", config, false)
		wantCode(t, err, release.Refused, "apps")
	})
}

// Other bytes under a version that another component has are no more taken from
// a mirror than from an uploader.
func TestAMirrorDoesNotClash(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		_, err := w.CreateMirror(t.Context(), ann, "demo", "debian", release.MirrorConfig{Suites: []release.MirrorSuite{trixie()}, Packages: []string{"hello"}})
		must(t, err)
		_, err = w.add("hello", "1", "amd64")
		must(t, err)
		before, err := w.Head(t.Context(), "demo")
		must(t, err)

		give := func(name, version, arch, salt string) ([]snapshots.Package, []release.File) {
			p, f := w.mirrored(w.receive(name, version, arch, salt))
			return []snapshots.Package{p}, []release.File{f}
		}
		packages, files := give("hello", "1", "amd64", "upstream's")
		_, err = w.ReplaceMirror(t.Context(), ann, "demo", "debian", packages, files)
		wantCode(t, err, release.Conflict, "hello=1:amd64 is in apps with other bytes")
		must(t, os.Remove(files[0].Path))
		if now, err := w.Head(t.Context(), "demo"); err != nil || now.ID() != before.ID() {
			t.Errorf("the refused update changed the pipeline (%v)", err)
		}
		for _, fine := range [][4]string{{"hello", "1", "amd64", ""}, {"hello", "1", "arm64", "other"}, {"hello", "2", "amd64", "other"}} {
			packages, files := give(fine[0], fine[1], fine[2], fine[3])
			_, err := w.ReplaceMirror(t.Context(), ann, "demo", "debian", packages, files)
			must(t, err)
		}
	})
}
