package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/sign"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

func TestUpdateHandsOverTheClosure(t *testing.T) {
	a := newArchive(t)
	r := newRig(t, a)
	progress := &fakeProgress{}
	if err := r.update(t.Context(), a.config("hello"), progress); err != nil {
		t.Fatal(err)
	}
	if got, want := r.names(), "apt base-files hello hello-data libc mawk"; got != want {
		t.Fatalf("packages %q, want %q", got, want)
	}
	total := 40_000 * int64(len("apt base-files hello hello-data libc mawk "))
	total += int64(len(a.files["dists/trixie/main/binary-amd64/Packages.xz"]))
	if progress.done != progress.total || progress.total != total || progress.unit != "bytes" {
		t.Errorf("progress %d of %d %s", progress.done, progress.total, progress.unit)
	}
	for i, p := range r.engine.packages {
		f := r.engine.files[i]
		if f.SHA256 != p.SHA256 || f.Size != p.Size || p.Filename != fmt.Sprintf("pool/%x/%x/%s", p.SHA256[:1], p.SHA256, f.Name) {
			t.Errorf("%s: its file is %+v", p.Ref(), f)
		}
	}
	const stanzaBegins = "Package: base-files\nVersion: 13\nArchitecture: amd64\nEssential: yes\nPriority: required\nDepends: awk\n" +
		"Description: Debian base system\nDescription-md5: 0123456789abcdef0123456789abcdef\nFilename: pool/"
	stanza := string(r.engine.packages[1].Stanza)
	if !strings.HasPrefix(stanza, stanzaBegins) || strings.Contains(stanza, "MD5sum") || strings.Contains(stanza, "SHA1:") {
		t.Errorf("the stanza does not keep upstream's bytes:\n%s", stanza)
	}
	index := a.files["dists/trixie/main/binary-amd64/Packages.xz"]
	want := []string{r.accepted(a), "demo/debian/selection", fmt.Sprintf("demo/debian/indices/%x", sha(index))}
	slices.Sort(want)
	if kept := filesBelow(t, r.dir); kept != strings.Join(want, " ") {
		t.Errorf("left behind: %s", kept)
	}
}

func TestUpdateDownloadsOnlyWhatThePoolLacks(t *testing.T) {
	a := newArchive(t)
	r := newRig(t, a)
	if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); err != nil {
		t.Fatal(err)
	}
	first := r.engine.packages
	before := len(a.seen())
	if err := r.update(t.Context(), a.config("hello", "unrelated"), &fakeProgress{}); err != nil {
		t.Fatal(err)
	}
	if len(r.engine.files) != 1 || r.engine.files[0].Name != "unrelated_1_amd64.deb" {
		t.Errorf("the second update brought the files %v", r.engine.files)
	}
	if debs := strings.Count(strings.Join(a.seen()[before:], "\n"), ".deb"); debs != 1 {
		t.Errorf("%d .debs were asked for, want 1", debs)
	}
	// The same upstream and wishes give the same packages, byte for byte.
	if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); err != nil {
		t.Fatal(err)
	}
	if !samePackages(first, r.engine.packages) {
		t.Error("the same upstream gave other packages")
	}
}

// What a gc removed from the pool after the update looked there is downloaded
// after all; an engine that never has enough is not asked for ever.
func TestUpdateWhoseFilesVanish(t *testing.T) {
	a := newArchive(t)
	r := newRig(t, a)
	if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); err != nil {
		t.Fatal(err)
	}
	all := r.engine.packages
	before := len(a.seen())
	r.engine.replaced = 0
	r.engine.vanish = func(try int) [32]byte {
		if try < maxTries {
			return all[try].SHA256
		}
		return [32]byte{}
	}
	if err := r.update(t.Context(), a.config("hello", "unrelated"), &fakeProgress{}); err != nil {
		t.Fatal(err)
	}
	if len(r.engine.files) != maxTries {
		t.Errorf("the update brought %d files, want the new one and those that vanished", len(r.engine.files))
	}
	if debs := strings.Count(strings.Join(a.seen()[before:], "\n"), ".deb"); debs != maxTries {
		t.Errorf("%d .debs were asked for, want each once", debs)
	}
	r.engine.replaced = 0
	r.engine.vanish = func(int) [32]byte { return all[0].SHA256 }
	if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); !errors.Is(err, release.ErrVanished) || r.engine.replaced != maxTries {
		t.Errorf("after %d tries: %v", r.engine.replaced, err)
	}
}

// A disk that is too small is told before anything is downloaded, and keeps its
// reserve; what an earlier update brought counts.
func TestUpdateLeavesRoom(t *testing.T) {
	a := newArchive(t)
	r := newRig(t, a)
	needed := 40_000 * int64(len("apt base-files hello hello-data libc mawk "))
	r.updater.config.Reserve = 1000
	r.updater.config.Free = func(string) (int64, error) { return needed + 999, nil }
	err := r.update(t.Context(), a.config("hello"), &fakeProgress{})
	if err == nil || !strings.Contains(err.Error(), "no space left") || strings.Contains(strings.Join(a.seen(), "\n"), ".deb") {
		t.Fatalf("%v; asked for %q", err, a.seen())
	}
	body := content("libc")
	downloaded := filepath.Join(r.dir, "demo/debian/packages", fmt.Sprintf("%x", sha(body)))
	if err := os.WriteFile(downloaded, body[:1], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); err != nil {
		t.Errorf("with one byte less to download: %v", err)
	}
}

func TestUpdateOfSeveralArchitectures(t *testing.T) {
	a := newArchive(t)
	arm := strings.ReplaceAll(base, "Architecture: amd64", "Architecture: arm64")
	a.debs["arm64"] = arm
	a.publish()
	r := newRigFor(t, a, "amd64", "arm64")
	if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); err != nil {
		t.Fatal(err)
	}
	if got, want := r.names(), "apt apt base-files base-files hello hello hello-data libc libc mawk mawk"; got != want {
		t.Fatalf("packages %q, want %q (all once)", got, want)
	}
	a.debs["arm64"] = strings.Replace(arm, "Package: hello\n", "Package: bye\n", 1)
	a.date = a.date.Add(time.Second)
	a.publish()
	progress := &fakeProgress{}
	if err := r.update(t.Context(), a.config("hello"), progress); err != nil {
		t.Fatalf("a package of one architecture only: %v", err)
	}
	if log := strings.Join(progress.log, "\n"); !strings.Contains(log, "package hello is not there for every architecture") {
		t.Errorf("the log does not say so:\n%s", log)
	}
}

// A bad upstream changes nothing, and the error names the file and what is
// wrong with it.
func TestABadUpstreamChangesNothing(t *testing.T) {
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	cut := func(b []byte) []byte { return b[:len(b)-1] }
	for _, c := range []struct {
		name   string
		spoil  func(t *testing.T, a *archive)
		wanted string // default hello
		errors []string
	}{
		{name: "no archive", spoil: func(t *testing.T, a *archive) { a.files = nil },
			errors: []string{"dists/trixie/InRelease", "404"}},
		{name: "other key", spoil: func(t *testing.T, a *archive) {
			key, err := sign.Generate("Mallory", "m@archive.example", now.Add(-time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			honest := a.key // stays that of the mirror's keyring
			a.key = key
			a.publish()
			a.key = honest
		}, errors: []string{"dists/trixie/InRelease"}},
		{name: "unsigned", spoil: func(t *testing.T, a *archive) {
			a.spoil("InRelease", func(b []byte) []byte {
				_, text, _ := bytes.Cut(b, []byte("\n\n"))
				text, _, _ = bytes.Cut(text, []byte("-----BEGIN PGP SIG"))
				return text
			})
		}, errors: []string{"dists/trixie/InRelease"}},
		{name: "tampered InRelease", spoil: func(t *testing.T, a *archive) {
			a.spoil("InRelease", func(b []byte) []byte { return bytes.Replace(b, []byte("Origin: Up"), []byte("Origin: Ap"), 1) })
		}, errors: []string{"dists/trixie/InRelease"}},
		{name: "truncated InRelease", spoil: func(t *testing.T, a *archive) {
			a.spoil("InRelease", func(b []byte) []byte { return b[:len(b)-60] })
		}, errors: []string{"dists/trixie/InRelease"}},
		{name: "endless InRelease", spoil: func(t *testing.T, a *archive) {
			a.spoil("InRelease", func(b []byte) []byte { return append(b, make([]byte, maxInRelease)...) })
		}, errors: []string{"dists/trixie/InRelease", "longer than"}},
		{name: "other suite", spoil: func(t *testing.T, a *archive) {
			a.spoil("InRelease", func([]byte) []byte { return a.sign("Suite: testing\nCodename: forky\nSHA256:\n") })
		}, errors: []string{"dists/trixie/InRelease", "forky"}},
		{name: "expired", spoil: func(t *testing.T, a *archive) {
			a.head = "Valid-Until: Fri, 20 Nov 2026 11:59:59 UTC\n"
			a.publish()
		}, errors: []string{"dists/trixie/InRelease", "expired at 2026-11-20T11:59:59Z"}},
		{name: "from the future", spoil: func(t *testing.T, a *archive) {
			a.date = now.Add(time.Minute)
			a.publish()
		}, errors: []string{"dists/trixie/InRelease", "in the future"}},
		{name: "no date", spoil: func(t *testing.T, a *archive) {
			a.spoil("InRelease", func([]byte) []byte { return a.sign("Suite: testing\nCodename: trixie\nSHA256:\n") })
		}, errors: []string{"dists/trixie/InRelease", "Date"}},
		{name: "weak hashes only", spoil: func(t *testing.T, a *archive) {
			a.spoil("InRelease", func(b []byte) []byte {
				_, text, _ := bytes.Cut(b, []byte("\n\n"))
				text, _, _ = bytes.Cut(text, []byte("SHA256:"))
				return a.sign(string(text) + "MD5Sum:\n 00 1 x\n")
			})
		}, errors: []string{"dists/trixie/InRelease", "SHA256"}},
		{name: "no such component", spoil: func(t *testing.T, a *archive) {
			a.debs = map[string]string{"i386": "Package: hello\nVersion: 1\nArchitecture: i386\n"}
			a.publish()
		}, errors: []string{"main/binary-amd64", "does not list"}},
		{name: "tampered index", spoil: func(t *testing.T, a *archive) { a.spoil(a.index(".xz"), flip) },
			errors: []string{"main/binary-amd64/Packages.xz", "SHA-256"}},
		{name: "truncated index", spoil: func(t *testing.T, a *archive) { a.spoil(a.index(".xz"), cut) },
			errors: []string{"main/binary-amd64/Packages.xz", "bytes"}},
		{name: "longer index", spoil: func(t *testing.T, a *archive) {
			a.spoil(a.index(".xz"), func(b []byte) []byte { return append(b, 0) })
		}, errors: []string{"main/binary-amd64/Packages.xz", "longer than"}},
		{name: "index that unpacks to more than is signed", spoil: func(t *testing.T, a *archive) {
			a.spoil("InRelease", func(b []byte) []byte {
				_, text, _ := bytes.Cut(b, []byte("\n\n"))
				text, _, _ = bytes.Cut(text, []byte("-----BEGIN PGP SIG"))
				plain := a.files["dists/trixie/main/binary-amd64/Packages"]
				return a.sign(strings.Replace(string(text), fmt.Sprintf("%8d main/binary-amd64/Packages\n", len(plain)), "100 main/binary-amd64/Packages\n", 1))
			})
		}, errors: []string{"main/binary-amd64/Packages.xz", "100 bytes"}},
		{name: "index that is none", spoil: func(t *testing.T, a *archive) {
			a.debs["amd64"] = base + "\nno field\n"
			a.publish()
		}, errors: []string{"main/binary-amd64/Packages.xz", "line"}},
		{name: "package with a name that leads elsewhere", spoil: func(t *testing.T, a *archive) {
			a.debs["amd64"] = "Package: ../../etc/passwd\nVersion: 1\nArchitecture: amd64\n"
			a.publish()
		}, errors: []string{"main/binary-amd64/Packages.xz", "passwd"}},
		{name: "wanted package that is not there", wanted: "goodbye", spoil: func(*testing.T, *archive) {},
			errors: []string{`"goodbye"`, "/debian trixie main"}},
		{name: "missing dependency", spoil: func(t *testing.T, a *archive) {
			a.debs["amd64"] = strings.Replace(base, "Package: libc\n", "Package: libd\n", 1)
			a.publish()
		}, wanted: "hello", errors: []string{`"libc"`, "hello 2.10-3 (wanted)"}},
		{name: "two packages with the same bytes", spoil: func(t *testing.T, a *archive) {
			a.debs["amd64"] = strings.ReplaceAll(base, "Package: hello-data\n", "Package: hello-data\nContent: hello\n")
			a.publish()
		}, errors: []string{"hello-data_2.10-3_all.deb", "same bytes as hello_2.10-3_amd64.deb"}},
		{name: "tampered package", spoil: func(t *testing.T, a *archive) { a.spoil("hello_2.10-3.deb", flip) },
			errors: []string{"pool/main/hello_2.10-3.deb", "SHA-256"}},
		{name: "truncated package", spoil: func(t *testing.T, a *archive) { a.spoil("hello_2.10-3.deb", cut) },
			errors: []string{"pool/main/hello_2.10-3.deb"}},
		{name: "longer package", spoil: func(t *testing.T, a *archive) {
			a.spoil("hello_2.10-3.deb", func(b []byte) []byte { return append(b, 1) })
		}, errors: []string{"pool/main/hello_2.10-3.deb", "longer than"}},
		{name: "package gone", spoil: func(t *testing.T, a *archive) { delete(a.files, "pool/main/hello_2.10-3.deb") },
			errors: []string{"pool/main/hello_2.10-3.deb", "404"}},
		{name: "server that breaks", spoil: func(t *testing.T, a *archive) {
			a.serve = func(w http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, "/libc_2.41-1.deb") {
					http.Error(w, "oh", http.StatusBadGateway)
					return true
				}
				return false
			}
		}, errors: []string{"pool/main/libc_2.41-1.deb", "502"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := newArchive(t)
			c.spoil(t, a)
			if c.wanted == "" {
				c.wanted = "hello"
			}
			r := newRig(t, a)
			err := r.update(t.Context(), a.config(c.wanted), &fakeProgress{})
			if err == nil {
				t.Fatal("the update succeeded")
			}
			for _, want := range c.errors {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q: %v", want, err)
				}
			}
			if r.engine.replaced != 0 {
				t.Error("the engine was given something")
			}
			if kept := filesBelow(t, r.dir); strings.Contains(kept, "InRelease") {
				t.Errorf("the release was kept as accepted: %s", kept)
			}
		})
	}
}

func TestAnOlderReleaseIsRefused(t *testing.T) {
	a := newArchive(t)
	r := newRig(t, a)
	if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); err != nil {
		t.Fatal(err)
	}
	a.date = a.date.Add(-time.Second)
	a.publish()
	err := r.update(t.Context(), a.config("hello"), &fakeProgress{})
	if err == nil || !strings.Contains(err.Error(), "older than") || r.engine.replaced != 1 {
		t.Fatalf("error %v after %d replacements", err, r.engine.replaced)
	}
	if err := os.Remove(filepath.Join(r.dir, r.accepted(a))); err != nil {
		t.Fatal(err)
	}
	if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); err != nil {
		t.Errorf("what the hint says does not help: %v", err)
	}
}

// An update that was aborted is continued by the next: what was complete is
// not asked for again, what was half is asked for from its middle.
func TestAnAbortedUpdateIsContinued(t *testing.T) {
	a := newArchive(t)
	r := newRig(t, a)
	half := len(content("hello")) / 2
	ctx, abort := context.WithCancel(t.Context())
	a.serve = func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.HasSuffix(req.URL.Path, "/hello_2.10-3.deb") {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(content("hello"))))
		if _, err := w.Write(content("hello")[:half]); err != nil {
			t.Error(err)
		}
		w.(http.Flusher).Flush()
		<-req.Context().Done()
		return true
	}
	progress := &fakeProgress{}
	// All other packages and the half one.
	progress.added = func(done int64) {
		if done == progress.total-int64(half) {
			abort()
		}
	}
	if err := r.update(ctx, a.config("hello"), progress); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want that of the abort", err)
	}
	if r.engine.replaced != 0 {
		t.Fatal("the aborted update changed something")
	}
	a.serve = nil
	before := len(a.seen())
	progress = &fakeProgress{}
	if err := r.update(t.Context(), a.config("hello"), progress); err != nil {
		t.Fatal(err)
	}
	var debs []string
	for _, request := range a.seen()[before:] {
		if strings.Contains(request, ".deb") {
			debs = append(debs, request)
		}
	}
	if want := fmt.Sprintf("pool/main/hello_2.10-3.deb from %d", half); len(debs) != 1 || debs[0] != want {
		t.Errorf("asked for %q, want only %q", debs, want)
	}
	if progress.done != progress.total || r.engine.replaced != 1 || len(r.engine.files) != 6 {
		t.Errorf("%d of %d bytes, %d replacements, %d files", progress.done, progress.total, r.engine.replaced, len(r.engine.files))
	}
}

// A half download whose bytes are wrong, and a server without ranges, cost
// another download but not the update.
func TestABadHalfIsStartedAgain(t *testing.T) {
	for _, ranges := range []bool{true, false} {
		t.Run(fmt.Sprintf("ranges %v", ranges), func(t *testing.T) {
			a := newArchive(t)
			if !ranges {
				a.serve = func(w http.ResponseWriter, r *http.Request) bool { r.Header.Del("Range"); return false }
			}
			r := newRig(t, a)
			store := filepath.Join(r.dir, "demo/debian/packages")
			if err := os.MkdirAll(store, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, p := range []string{"hello", "libc"} {
				sum := sha(content(p))
				if err := os.WriteFile(filepath.Join(store, fmt.Sprintf("%x", sum)), bytes.Repeat([]byte("x"), 1000), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			progress := &fakeProgress{}
			if err := r.update(t.Context(), a.config("hello"), progress); err != nil {
				t.Fatal(err)
			}
			if progress.done != progress.total {
				t.Errorf("%d of %d bytes", progress.done, progress.total)
			}
		})
	}
}

// An archive may offer less than Debian's: no by-hash names, fewer
// compressions, no plain index in the listing.
func TestPlainerArchivesAreReadToo(t *testing.T) {
	for _, c := range []struct {
		name  string
		leave func(file string) bool // whether the archive has it
	}{
		{"no by-hash", func(file string) bool { return !strings.Contains(file, "/by-hash/") }},
		{"gzip only", func(file string) bool {
			return !strings.HasSuffix(file, "Packages.xz") && !strings.HasSuffix(file, "Packages")
		}},
		{"plain only", func(file string) bool {
			return !strings.HasSuffix(file, "Packages.xz") && !strings.HasSuffix(file, "Packages.gz")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newArchive(t)
			a.leave = c.leave
			a.publish()
			r := newRig(t, a)
			if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); err != nil {
				t.Fatal(err)
			}
			if got, want := r.names(), "apt base-files hello hello-data libc mawk"; got != want {
				t.Errorf("packages %q, want %q", got, want)
			}
		})
	}
}

// Packages for all architectures are read from binary-all where the release
// says so, as apt does.
func TestArchitectureAll(t *testing.T) {
	for head, read := range map[string]bool{
		"":                           true,
		"Architectures: amd64\n":     false,
		"Architectures: all amd64\n": true,
		"Architectures: amd64 all\nNo-Support-for-Architecture-all: Packages\n":   false,
		"Architectures: all amd64\nNo-Support-for-Architecture-all: Sources\n":    true,
		"Architectures: amd64 arm64\nNo-Support-for-Architecture-all: Packages\n": false,
	} {
		a := newArchive(t)
		a.head = head
		a.debs["all"] = "Package: notes\nVersion: 1\nArchitecture: all\n"
		a.publish()
		r := newRig(t, a)
		config := a.config()
		config.All = true
		if err := r.update(t.Context(), config, &fakeProgress{}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(r.names(), "notes"); got != read {
			t.Errorf("%q: binary-all is read: %v, want %v", head, got, read)
		}
	}
}

func TestUpdateKnowsWhatIsAMirror(t *testing.T) {
	p := release.Pipeline{Name: "demo", Components: []release.Component{{Name: "apps", Kind: release.Repository}}}
	for component, code := range map[string]release.Code{"apps": release.Invalid, "debian": release.NotFound} {
		_, err := mirrorOf(p, component)
		var shown *release.Error
		if !errors.As(err, &shown) || shown.Code != code || shown.Hint == "" {
			t.Errorf("%s: error %#v, want code %s with a hint", component, err, code)
		}
	}
}

func samePackages(a, b []snapshots.Package) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i].Stanza, b[i].Stanza) {
			return false
		}
	}
	return true
}

// filesBelow lists the files below dir.
func filesBelow(t *testing.T, dir string) string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			name, err := filepath.Rel(dir, path)
			names = append(names, name)
			return err
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

// A mirror that could never be updated is refused when it is created.
func TestValidate(t *testing.T) {
	good := newArchive(t).config("hello")
	if err := Validate("create", "debian", good); err != nil {
		t.Fatal(err)
	}
	for says, spoil := range map[string]func(*release.MirrorConfig){
		"http or https URL":       func(c *release.MirrorConfig) { c.Suites[0].URL = "ftp.example/debian" },
		"suite":                   func(c *release.MirrorConfig) { c.Suites[0].Suite = "../../trixie" },
		"component":               func(c *release.MirrorConfig) { c.Suites[0].Components = []string{"main", "../x"} },
		`package name "Hello"`:    func(c *release.MirrorConfig) { c.Packages = []string{"hello", "Hello"} },
		"keyring cannot be read":  func(c *release.MirrorConfig) { c.Suites[0].Keyring = []byte("root:x:0:0") },
		"cannot create mirror up": func(c *release.MirrorConfig) { c.Suites[0].URL = "" },
	} {
		config := good
		config.Suites = slices.Clone(good.Suites)
		spoil(&config)
		var known *release.Error
		if err := Validate("create", "up", config); !errors.As(err, &known) || known.Code != release.Invalid || !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %q", err, says)
		}
	}
}
