package release_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/pool"
	"aptfleet/repo-manager/internal/publish"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

func TestRollingRepository(t *testing.T) {
	type step struct {
		name, version, arch, salt string
		older                     bool
		code                      release.Code // "" means accepted
		already                   bool
		says                      string
		after                     string // what dev then lists; "" means as before
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"a new version replaces the older one of its architecture", []step{
			{name: "app", version: "1.0", arch: "amd64", after: "app 1.0 amd64"},
			{name: "app", version: "1.0", arch: "arm64", after: "app 1.0 amd64, app 1.0 arm64"},
			{name: "app", version: "1.1", arch: "amd64", after: "app 1.1 amd64, app 1.0 arm64"},
		}},
		{"a lower version needs to be wanted", []step{
			{name: "app", version: "2.0", arch: "amd64", after: "app 2.0 amd64"},
			{name: "app", version: "2.0~rc1", arch: "amd64", code: release.Refused, says: "2.0~rc1 is older than 2.0"},
			{name: "app", version: "2.0~rc1", arch: "amd64", older: true, after: "app 2.0~rc1 amd64"},
		}},
		{"the same bytes again are fine", []step{
			{name: "app", version: "1.0", arch: "amd64", after: "app 1.0 amd64"},
			{name: "app", version: "1.0", arch: "amd64", already: true},
		}},
		{"other bytes are a conflict, even after the first left", []step{
			{name: "app", version: "1.0", arch: "amd64", after: "app 1.0 amd64"},
			{name: "app", version: "1.0", arch: "amd64", salt: "x", code: release.Conflict, says: "other bytes"},
			{name: "app", version: "1.1", arch: "amd64", after: "app 1.1 amd64"},
			{name: "app", version: "1.0", arch: "amd64", salt: "x", older: true, code: release.Conflict, says: "uploaded by ann"},
			{name: "app", version: "1.0", arch: "amd64", older: true, after: "app 1.0 amd64"},
		}},
		{"an architecture must be declared", []step{
			{name: "app", version: "1.0", arch: "riscv64", code: release.Refused, says: "architecture is riscv64"},
			{name: "app", version: "1.0", arch: "all", after: "app 1.0 all"},
		}},
		{"all and a real architecture do not share a version", []step{
			{name: "app", version: "1.0", arch: "all", after: "app 1.0 all"},
			{name: "app", version: "1.0", arch: "amd64", code: release.Conflict, says: "already in apps for architecture all"},
		}},
		{"a version for all goes when every architecture has a newer one", []step{
			{name: "app", version: "1.0", arch: "all", after: "app 1.0 all"},
			{name: "app", version: "1.1", arch: "amd64", after: "app 1.0 all, app 1.1 amd64"},
			{name: "app", version: "1.1", arch: "arm64", after: "app 1.1 amd64, app 1.1 arm64"},
			{name: "app", version: "1.2", arch: "all", after: "app 1.2 all"},
			{name: "app", version: "1.1.5", arch: "arm64", code: release.Refused, says: "older than 1.2"},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				before := ""
				for i, s := range c.steps {
					upload, err := w.addSalted(s.name, s.version, s.arch, s.salt, s.older)
					if s.code != "" {
						wantCode(t, err, s.code, s.name+".deb", s.says)
					} else if err != nil || upload.Already != s.already {
						t.Errorf("step %d: already %v, error %v", i, upload.Already, err)
					}
					if s.after != "" {
						before = s.after
					}
					if got := sorted(w.list("dev")); got != sorted(before) {
						t.Errorf("step %d: dev lists %q, want %q", i, got, before)
					}
				}
			})
		})
	}
}

// Packages that arrive together share one state; each is judged by itself, in
// their order, as if those before it had been added already.
func TestAddAll(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		uploads := []release.Incoming{
			w.receive("app", "1.0", "amd64", ""),
			w.receive("app", "1.1", "amd64", ""),
			w.receive("app", "1.1", "amd64", "other bytes"),
			w.receive("app", "0.9", "amd64", ""),
			w.receive("robot", "1.0", "riscv64", ""),
			w.receive("tool", "1.0", "all", ""),
			w.receive("tool", "1.0", "all", ""),
		}
		before, err := w.History(t.Context(), "demo", "dev")
		must(t, err)
		added := w.AddAll(t.Context(), ann, "demo", "apps", uploads, false)
		for i, want := range []struct {
			code    release.Code
			already bool
		}{{}, {}, {code: release.Conflict}, {code: release.Refused}, {code: release.Refused}, {}, {already: true}} {
			if a := added[i]; release.CodeOf(a.Err) != want.code || a.Already != want.already || (a.Err == nil) != (a.State == w.stage("dev").Offer.State) {
				t.Errorf("upload %d: %+v, want %+v", i, a, want)
			}
			must(t, uploads[i].Discard())
		}
		after, err := w.History(t.Context(), "demo", "dev")
		must(t, err)
		if len(after) != len(before)+1 {
			t.Errorf("dev moved %d times", len(after)-len(before))
		}
		if got, want := w.list("dev"), "app 1.1 amd64, tool 1.0 all"; got != want {
			t.Errorf("dev lists %q, want %q", got, want)
		}
		files, err := w.store.Files(t.Context())
		must(t, err)
		if len(files) != 3 {
			t.Errorf("%d files are in the pool, want 3", len(files))
		}
		for _, a := range w.AddAll(t.Context(), ann, "demo", "nowhere", []release.Incoming{{Name: "x.deb"}}, false) {
			wantCode(t, a.Err, release.NotFound, "nowhere")
		}
		if none := w.AddAll(t.Context(), ann, "demo", "apps", nil, false); len(none) != 0 {
			t.Errorf("of nothing: %v", none)
		}
	})
}

func TestKeep(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		_, err := w.CreateRepository(t.Context(), ann, "demo", "ci", 3)
		must(t, err)
		var last release.Upload
		for _, version := range []string{"1", "2", "3", "4"} {
			in := w.receive("tool", version, "amd64", "")
			last, err = w.Add(t.Context(), ann, "demo", "ci", in, false)
			must(t, err)
		}
		if got, want := w.list("dev"), "tool 2 amd64, tool 3 amd64, tool 4 amd64"; got != want {
			t.Errorf("dev lists %q, want %q", got, want)
		}
		if len(last.Replaced) != 1 || last.Replaced[0] != "1" {
			t.Errorf("the last upload replaced %v, want version 1", last.Replaced)
		}
		gone, err := w.Remove(t.Context(), ann, "demo", "ci", "tool", "3")
		must(t, err)
		if len(gone) != 1 || gone[0].Version != "3" {
			t.Errorf("removed %v", gone)
		}
		_, err = w.Remove(t.Context(), ann, "demo", "ci", "tool", "3")
		wantCode(t, err, release.NotFound, "tool 3")
		_, err = w.Remove(t.Context(), ann, "demo", "ci", "tool", "")
		must(t, err)
		if got := w.list("dev"); got != "" {
			t.Errorf("dev lists %q after everything was removed", got)
		}
		if got, want := w.list(last.State.String()), "tool 2 amd64, tool 3 amd64, tool 4 amd64"; got != want {
			t.Errorf("the old state lists %q, want %q", got, want)
		}
	})
}

// Two components of a pipeline are one source to apt.
func TestSameVersionInTwoComponents(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		_, err := w.CreateRepository(t.Context(), ann, "demo", "other", 1)
		must(t, err)
		_, err = w.add("app", "1.0", "amd64")
		must(t, err)
		different := w.receive("app", "1.0", "amd64", "different")
		_, err = w.Add(t.Context(), ann, "demo", "other", different, false)
		wantCode(t, err, release.Conflict, "already in apps with other bytes")
		must(t, different.Discard())
		_, err = w.Add(t.Context(), ann, "demo", "other", w.receive("app", "1.0", "amd64", ""), false)
		must(t, err)
	})
}

// Uploads that wait together share states; a bad one fails alone; none is
// lost; time between publications is kept.
func TestGroupCommit(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		const uploads = 30
		var wait sync.WaitGroup
		var mu sync.Mutex
		states := make(map[snapshots.ID]bool)
		for i := range uploads {
			name := "pkg" + string(rune('a'+i%26)) + string(rune('a'+i/26))
			in := w.receive(name, "1.0", "amd64", "")
			wait.Go(func() {
				upload, err := w.Add(t.Context(), ann, "demo", "apps", in, false)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				states[upload.State] = true
			})
			bad := w.receive(name, "1.0", "riscv64", "")
			wait.Go(func() {
				if _, err := w.Add(t.Context(), ann, "demo", "apps", bad, false); release.CodeOf(err) != release.Refused {
					t.Errorf("a package of a wrong architecture: %v", err)
				}
				if err := bad.Discard(); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		packages, err := w.Packages(t.Context(), "demo", "dev", release.Filter{})
		must(t, err)
		if len(packages) != uploads {
			t.Errorf("%d packages are there, want %d", len(packages), uploads)
		}
		if len(states) > 10 {
			t.Errorf("%d uploads at once made %d states", uploads, len(states))
		}
	})
}

// Versions of one package that arrive together replace one another: what was
// taken and is in no state is in the pool on record, so the tree is clean, and
// the same bytes may come again.
func TestVersionsInOneBatch(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var wait sync.WaitGroup
		for i := range 20 {
			in := w.receive("app", fmt.Sprint(i+1), "amd64", "")
			wait.Go(func() {
				if _, err := w.Add(t.Context(), ann, "demo", "apps", in, true); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		files, err := w.store.Files(t.Context())
		must(t, err)
		if len(files) != 20 {
			t.Errorf("%d files are on record, want 20", len(files))
		}
		w.mustBeClean()
		again, err := w.addSalted("app", "1", "amd64", "", true)
		must(t, err)
		if got := w.list("dev"); got != "app 1 amd64" {
			t.Errorf("after version 1 came again (%v) dev lists %q", again, got)
		}
		w.mustBeClean()
		path := filepath.Join(w.dir, "public", publish.PoolFilename(files[0].SHA256, files[0].Name))
		must(t, os.Rename(path, filepath.Join(w.dir, "away")))
		report, err := w.Check(t.Context(), nil)
		must(t, err)
		if len(report.Findings) != 1 || !strings.HasSuffix(report.Findings[0].Path, files[0].Name) {
			t.Errorf("without %s the findings are %q", files[0].Name, report.Findings)
		}
		must(t, os.Rename(filepath.Join(w.dir, "away"), path))
	})
}

// However fast uploads come, each is published at once: the Date stays with the
// clock, and HTTP clients see by the time of modification that there is more.
func TestDatesOfAStage(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		_, last := w.inRelease("dev")
		changed := w.modified("dev")
		began := time.Now()
		for n := range 30 {
			_, err := w.add("app", strconv.Itoa(n+1), "amd64")
			must(t, err)
			_, date := w.inRelease("dev")
			if date.Before(last) || date.After(time.Now()) {
				t.Errorf("version %d: Date %s, before it %s, now it is %s", n+1, date, last, time.Now())
			}
			if now := w.modified("dev"); now.Before(changed.Add(time.Second)) {
				t.Errorf("version %d: modified at %s, before it %s: HTTP cannot tell them apart", n+1, now, changed)
			}
			last, changed = date, w.modified("dev")
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("30 publications waited %s for the clock", took)
		}
	})
}

// A commit that fails changes nothing, leaves nothing, and does not stop what
// comes after it.
func TestCommitFails(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		_, err := w.add("app", "1.0", "amd64")
		must(t, err)
		before := w.stage("dev")
		w.store.FailNext(syscall.ENOSPC)
		_, err = w.add("app", "1.1", "amd64")
		wantCode(t, err, release.NoSpace, "no space left")
		if after := w.stage("dev"); after != before {
			t.Errorf("dev moved to %v", after)
		}
		w.store.FailNext(errors.New("broken"))
		if _, err = w.add("app", "1.1", "amd64"); err == nil || release.CodeOf(err) != "" {
			t.Errorf("a broken store gave %v, want an internal error", err)
		}
		w.mustBeClean()
		_, err = w.add("app", "1.1", "amd64")
		must(t, err)
	})
}

// What is committed and cannot be published is not answered with success, and
// is published as soon as that works again.
func TestPublicationFails(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		before := w.modified("dev")
		w.publisher.fails.Store(true)
		_, err := w.add("app", "1.0", "amd64")
		wantCode(t, err, release.Unpublished, "is recorded")
		var told *release.Error // an undo that is repeated would go further back
		if !errors.As(err, &told) || !strings.Contains(told.Hint, "need not be repeated") {
			t.Errorf("the hint of %v does not keep people from repeating it", err)
		}
		_, err = w.add("app", "1.0", "amd64") // in the pipeline already, but nobody sees it
		wantCode(t, err, release.Unpublished, "is recorded")
		w.publisher.fails.Store(false)
		time.Sleep(time.Minute)
		text, after := w.inRelease("dev")
		if !w.modified("dev").After(before) || field(text, "Aptfleet-State") != w.stage("dev").Offer.State.String() {
			t.Errorf("a minute later dev is of %s with %s", after, field(text, "Aptfleet-State"))
		}
	})
}

// Who repeats an act that was recorded is answered once it is visible.
func TestARepeatedActPublishes(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		_, err := w.add("app", "1.0", "amd64")
		must(t, err)
		published := func(stage string) bool {
			text, _ := w.inRelease(stage)
			return field(text, "Aptfleet-State") == w.stage(stage).Offer.State.String()
		}
		w.promote("dev", "canary")
		w.publisher.fails.Store(true)
		_, err = w.add("app", "1.1", "amd64")
		wantCode(t, err, release.Unpublished)
		_, err = w.Promote(t.Context(), ann, "demo", "dev", "canary", "", nil, false)
		wantCode(t, err, release.Unpublished)
		_, err = w.Promote(t.Context(), ann, "demo", "dev", "canary", "", nil, false)
		wantCode(t, err, release.Unpublished)
		if published("dev") || published("canary") {
			t.Fatal("a publisher in a bad mood published")
		}
		w.publisher.fails.Store(false)
		move, err := w.Promote(t.Context(), ann, "demo", "dev", "canary", "", nil, false)
		must(t, err)
		if move.Seq != 0 || !published("canary") || !published("dev") {
			t.Errorf("move %d; canary is published: %v, dev: %v", move.Seq, published("canary"), published("dev"))
		}
		again, err := w.add("app", "1.1", "amd64")
		must(t, err)
		if !again.Already {
			t.Error("the package was added twice")
		}
	})
}

// A restart publishes what the last server could not.
func TestRestartPublishes(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.publisher.fails.Store(true)
		if _, err := w.add("app", "1.0", "amd64"); err == nil {
			t.Error("an upload that was not published was answered with success")
		}
		w.close()
		w.open()
		text, _ := w.inRelease("dev")
		if got := w.list("dev"); got != "app 1.0 amd64" || field(text, "Aptfleet-State") != w.stage("dev").Offer.State.String() {
			t.Errorf("after the restart dev lists %q and publishes %s", got, field(text, "Aptfleet-State"))
		}
	})
}

// A process that was killed between putting a file into the pool and the commit
// leaves a file that nothing refers to; the next one takes it back, and only
// it.
func TestIntents(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		kept, err := w.add("app", "1.0", "amd64")
		must(t, err)
		lost := w.receive("lost", "1.0", "amd64", "")
		w.close()
		files, err := pool.New(filepath.Join(w.dir, "public"))
		must(t, err)
		_, err = files.PutBytes(lost.Content, lost.Package.SHA256, "lost_1.0_amd64.deb")
		must(t, err)
		intents := kept.SHA256 + " app_1.0_amd64.deb\n" + hex(lost.Package.SHA256) + " lost_1.0_amd64.deb\nfeed"
		must(t, os.WriteFile(w.config.Intents, []byte(intents), 0o600))
		w.open()
		if files.Has(lost.Package.SHA256, "lost_1.0_amd64.deb") {
			t.Error("the file without a commit is still in the pool")
		}
	})
}

func TestMirror(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		config := release.MirrorConfig{
			Suites:   []release.MirrorSuite{{URL: "https://mirror.example/debian", Suite: "trixie", Components: []string{"main"}, Keyring: []byte("k")}},
			Packages: []string{"hello"},
		}
		_, err := w.CreateMirror(t.Context(), ann, "demo", "debian", release.MirrorConfig{})
		wantCode(t, err, release.Invalid, "it has no suite")
		_, err = w.CreateMirror(t.Context(), ann, "demo", "debian", config)
		must(t, err)
		upload := w.receive("app", "1", "all", "")
		_, err = w.Add(t.Context(), ann, "demo", "debian", upload, false)
		wantCode(t, err, release.Refused, "it is a mirror")
		must(t, upload.Discard())

		var packages []snapshots.Package
		var files []release.File
		give := func(name, version, arch string) {
			in := w.receive(name, version, arch, "")
			p, f := w.mirrored(in)
			packages, files = append(packages, p), append(files, f)
		}
		give("hello", "1", "amd64")
		give("libc", "1", "amd64")
		give("docs", "1", "all")
		state, err := w.ReplaceMirror(t.Context(), ann, "demo", "debian", packages, files)
		must(t, err)
		if got, want := w.list("dev"), "docs 1 all, hello 1 amd64, libc 1 amd64"; got != want || w.stage("dev").Offer.State != state {
			t.Errorf("dev lists %q, want %q", got, want)
		}
		same, err := w.ReplaceMirror(t.Context(), ann, "demo", "debian", packages, nil)
		must(t, err)
		if same != state {
			t.Error("the same packages made another state")
		}
		packages, files = packages[1:], nil
		give("hello", "2", "amd64")
		_, err = w.ReplaceMirror(t.Context(), ann, "demo", "debian", packages, files)
		must(t, err)
		if got, want := w.list("dev"), "docs 1 all, hello 2 amd64, libc 1 amd64"; got != want {
			t.Errorf("dev lists %q, want %q", got, want)
		}
		packages, files = nil, nil
		give("hello", "3", "riscv64")
		_, err = w.ReplaceMirror(t.Context(), ann, "demo", "debian", packages, files)
		wantCode(t, err, release.Refused, "riscv64")
		must(t, os.Remove(files[0].Path)) // a refused file stays its giver's
	})
}
