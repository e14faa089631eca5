package publish

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"aptfleet/snapshots"
)

// apt is this machine's apt in a private root: own sources, state and cache.
type apt struct {
	t      *testing.T
	root   string
	config string // its APT_CONFIG, read before anything else

	mu   sync.Mutex
	asks []string // paths it asked the server for
}

// newAPT serves f's tree and returns an apt whose sources are bases (paths
// below the root) with all components.
func newAPT(t *testing.T, f *fixture, bases ...string) *apt {
	t.Helper()
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Fatal("apt-get is missing: `make test` installs what the tests use")
	}
	a := &apt{t: t, root: t.TempDir()}
	files := http.FileServer(http.Dir(f.public))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.asks = append(a.asks, r.URL.Path)
		a.mu.Unlock()
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)

	for _, dir := range []string{"etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d", "etc/apt/trusted.gpg.d", "state/lists/partial", "cache/archives/partial", "log"} {
		if err := os.MkdirAll(filepath.Join(a.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	certificate, err := f.key.CertificateBinary()
	if err != nil {
		t.Fatal(err)
	}
	keyring := filepath.Join(a.root, "archive.pgp")
	write(t, keyring, certificate)
	write(t, filepath.Join(a.root, "status"), nil)
	a.config = filepath.Join(a.root, "apt.conf")
	write(t, a.config, []byte(fmt.Sprintf(`Dir "%[1]s"; Dir::Etc "%[1]s/etc/apt"; Dir::State "%[1]s/state"; Dir::State::status "%[1]s/status";
Dir::Cache "%[1]s/cache"; Dir::Log "%[1]s/log"; Dir::Bin::methods "/usr/lib/apt/methods"; Dir::Bin::dpkg "/usr/bin/dpkg";
APT::Architecture "amd64"; APT::Architectures { "amd64"; }; APT::Sandbox::User "root";
Acquire::http::Proxy "DIRECT"; Acquire::Languages "none"; Acquire::Retries "0";
`, a.root)))
	for i, base := range bases {
		write(t, filepath.Join(a.root, "etc/apt/sources.list.d", string(rune('a'+i))+".sources"),
			[]byte("Types: deb\nURIs: "+server.URL+"/"+base+"\nSuites: trixie\nComponents: apps base\nSigned-By: "+keyring+"\n"))
	}
	return a
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// run runs a program of apt with further arguments.
func (a *apt) run(program string, args ...string) (output string, err error) {
	a.t.Helper()
	a.mu.Lock()
	a.asks = nil
	a.mu.Unlock()
	command := exec.Command(program, args...)
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "APT_CONFIG=" + a.config}
	command.Dir = a.root
	out, err := command.CombinedOutput()
	return string(out), err
}

// update runs apt-get update and fails the test on any complaint.
func (a *apt) update(args ...string) {
	a.t.Helper()
	out, err := a.run("apt-get", append(args, "update")...)
	if err != nil || strings.Contains(out, "W:") || strings.Contains(out, "E:") {
		a.t.Fatalf("apt-get update: %v\n%s", err, out)
	}
}

// names lists all packages that apt knows.
func (a *apt) names() []string {
	a.t.Helper()
	out, err := a.run("apt-cache", "pkgnames")
	if err != nil {
		a.t.Fatalf("apt-cache: %v\n%s", err, out)
	}
	names := strings.Fields(out)
	slices.Sort(names)
	return slices.DeleteFunc(names, func(n string) bool { return n == "libc6" })
}

func TestAptReadsAStage(t *testing.T) {
	f := newFixture(t)
	tool := f.add("tool", "1.2-1", "amd64", "Depends: data (= 3)\n")
	data := f.add("data", "3", "all")
	f.offer(f.state(tool, data))
	a := newAPT(t, f, "demo/dev")
	a.update()

	for _, path := range a.asks {
		if strings.Contains(path, "Packages") {
			t.Errorf("apt asked for %s although Acquire-By-Hash is offered", path)
		}
	}
	if !slices.ContainsFunc(a.asks, func(path string) bool {
		return strings.HasPrefix(path, "/demo/dev/dists/trixie/apps/binary-amd64/by-hash/SHA256/")
	}) {
		t.Errorf("apt asked for no index by hash: %q", a.asks)
	}
	if got := a.names(); !slices.Equal(got, []string{"data", "tool"}) {
		t.Errorf("apt knows %q", got)
	}
	out, err := a.run("apt-get", "install", "-s", "tool")
	if err != nil || !strings.Contains(out, "Inst data (3 demo:dev [all])") {
		t.Errorf("apt-get install -s: %v\n%s", err, out)
	}
	out, err = a.run("apt-get", "download", "tool", "data")
	if err != nil {
		t.Fatalf("apt-get download: %v\n%s", err, out)
	}
	for name, version := range map[string]string{"tool_1.2-1_amd64.deb": "1.2-1", "data_3_all.deb": "3"} {
		out, err := exec.Command("dpkg-deb", "-f", filepath.Join(a.root, name), "Version").CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != version {
			t.Errorf("%s: %v, version %q", name, err, out)
		}
	}
	if out, err = a.run("apt-cache", "policy"); err != nil || !strings.Contains(out, "release o=Aptfleet,a=dev,n=trixie,l=demo,c=apps,b=amd64") {
		t.Errorf("apt-cache policy: %v\n%s", err, out)
	}
}

// Every encoding, with indices of several frames and empty ones, gives apt the
// same packages.
func TestAptReadsEveryEncoding(t *testing.T) {
	f := newFixture(t)
	state := f.state(many(t, 4000)...)
	if n := len(state.Index(snapshots.Key{Component: "apps", Architecture: "amd64"}).Chunks); n < 3 {
		t.Fatalf("the index has %d chunks, the test wants several", n)
	}
	f.offer(state)
	for _, encoding := range []string{"gz", "zst"} {
		t.Run(encoding, func(t *testing.T) {
			a := newAPT(t, f, "demo/dev")
			a.update("-o", "Acquire::CompressionTypes::Order::="+encoding)
			if got := a.names(); len(got) != 4000 {
				t.Errorf("apt knows %d packages", len(got))
			}
			lists, err := filepath.Glob(a.root + "/state/lists/*Packages*")
			if err != nil || len(lists) == 0 {
				t.Fatalf("apt holds no lists: %v", err)
			}
			// Its server log proves which file it took: the by-hash name is
			// that of the encoding and of no other.
			for _, name := range a.asks {
				if !strings.Contains(name, "by-hash") {
					continue
				}
				head := make([]byte, 4)
				file, err := os.Open(filepath.Join(f.public, name))
				if err != nil {
					t.Fatal(err)
				}
				_, err = file.Read(head)
				if err != nil {
					t.Fatal(err)
				}
				if err := file.Close(); err != nil {
					t.Fatal(err)
				}
				if zstd := string(head) == "\x28\xb5\x2f\xfd"; zstd != (encoding == "zst") {
					t.Errorf("with order %s apt took %s, which begins %x", encoding, name, head)
				}
			}
		})
	}
}

// A client that holds newer lists follows the stage back, and sees the last of
// three publications within a second.
func TestAptFollowsAStageThatGoesBack(t *testing.T) {
	f := newFixture(t)
	one, two := f.state(f.add("tool", "1", "amd64")), f.state(f.add("tool", "2", "amd64"))
	f.offer(one)
	a := newAPT(t, f, "demo/dev")
	for i, state := range []snapshots.State{two, one, two, one} {
		f.offer(state)
		if i == 1 { // a step that the client does not see
			continue
		}
		a.update()
		out, err := a.run("apt-cache", "policy", "tool")
		want := "Candidate: 2"
		if state.ID() == one.ID() {
			want = "Candidate: 1"
		}
		if err != nil || !strings.Contains(out, want) {
			t.Fatalf("publication %d: %v, want %s\n%s", i, err, want, out)
		}
	}
}

// Stage, snapshot and state are archives of their own, also side by side.
func TestAptReadsFixedBases(t *testing.T) {
	f := newFixture(t)
	old, now := f.state(f.add("tool", "1", "amd64")), f.state(f.add("tool", "2", "amd64"))
	f.fix("snapshots/20261120T101500Z", old)
	f.fix("states/"+now.ID().String(), now)
	f.offer(now)
	a := newAPT(t, f, "demo/snapshots/20261120T101500Z", "demo/states/"+now.ID().String(), "demo/dev")
	a.update()
	a.update() // nothing changed: no complaint about changed fields
	out, err := a.run("apt-cache", "policy", "tool")
	if err != nil || !strings.Contains(out, "Candidate: 2") || !strings.Contains(out, " 1 500") {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := a.run("apt-get", "download", "tool=1"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// A pipeline without components is an archive, too.
func TestAptReadsAPipelineWithoutComponents(t *testing.T) {
	f := newFixture(t)
	empty, err := snapshots.New(t.Context(), f.store, nil)
	if err != nil {
		t.Fatal(err)
	}
	bare := Base{Pipeline: "bare", Distribution: "trixie", Architectures: []string{"amd64"}}
	f.now = f.now.Add(1)
	if err := f.Stage(t.Context(), bare, "dev", empty, Meta{Date: f.now}); err != nil {
		t.Fatal(err)
	}
	a := newAPT(t, f, "bare/dev")
	if out, err := a.run("apt-get", "update"); err != nil {
		t.Fatalf("apt-get update: %v\n%s", err, out)
	}
	if got := a.names(); len(got) != 0 {
		t.Errorf("apt knows %q", got)
	}
}

// What apt must refuse.
func TestAptRefuses(t *testing.T) {
	rows := []struct {
		name   string
		meta   Meta
		damage func(t *testing.T, f *fixture, dists string)
		wants  string // regular expression
	}{
		{name: "an expired stage", meta: Meta{ValidUntil: start.Add(time10s)}, wants: "is expired"},
		{name: "a changed InRelease", damage: func(t *testing.T, _ *fixture, dists string) {
			edit(t, filepath.Join(dists, "InRelease"), "Label: demo", "Label: evil")
		}, wants: "BADSIG|Message has been manipulated"}, // gpgv, and sqv since Debian 13
		{name: "an index with other bytes", damage: func(t *testing.T, f *fixture, dists string) {
			for name := range byHashNames(read(t, filepath.Join(dists, "Release"))) {
				damage(t, filepath.Join(dists, name))
			}
		}, wants: "Hash Sum mismatch"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			f := newFixture(t)
			f.now = f.now.Add(1)
			row.meta.Date = f.now
			if err := f.Stage(t.Context(), demo, "dev", f.state(f.add("tool", "1", "amd64")), row.meta); err != nil {
				t.Fatal(err)
			}
			if row.damage != nil {
				row.damage(t, f, filepath.Join(f.public, "demo/dev/dists/trixie"))
			}
			a := newAPT(t, f, "demo/dev")
			out, _ := a.run("apt-get", "update")
			if !regexp.MustCompile(row.wants).MatchString(out) {
				t.Errorf("apt-get update says nothing of %q:\n%s", row.wants, out)
			}
			if got := a.names(); len(got) != 0 {
				t.Errorf("apt knows %q", got)
			}
		})
	}
}

// A client that updates while the stage moves again and again never meets an
// index that its InRelease does not describe.
func TestAptUpdatesWhileTheStageMoves(t *testing.T) {
	f := newFixture(t)
	packages := many(t, 1500)
	states := []snapshots.State{f.state(packages...)}
	for i := range 3 {
		states = append(states, f.state(append(packages[i*50:], described(t, "tool", fmt.Sprint(i), "amd64"))...))
	}
	f.now = f.now.Add(-time.Hour) // one second per publication leads back to now
	f.offer(states[0])
	a := newAPT(t, f, "demo/dev")
	done, stop := make(chan int), make(chan struct{})
	go func() {
		publications := 0
		defer func() { done <- publications }()
		for ; ; publications++ {
			select {
			case <-stop:
				return
			default:
			}
			f.now = f.now.Add(time.Second)
			if err := f.Stage(context.Background(), demo, "dev", states[publications%len(states)], Meta{Date: f.now}); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	defer func() {
		close(stop)
		publications := <-done
		t.Logf("%d publications during 8 updates", publications)
		if publications < 16 {
			t.Error("too few to fall between the answers of one update")
		}
	}()
	for range 8 {
		a.update()
	}
}
