package update

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"aptfleet/device-updater/internal/apttest"
	"aptfleet/device-updater/internal/archive"
	"aptfleet/device-updater/internal/drift"
	"aptfleet/device-updater/internal/rootfs"
	"aptfleet/device-updater/internal/sandbox"
	"aptfleet/internal/bom"
	"aptfleet/test/rig"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == sandbox.Argument {
		os.Exit(sandbox.Main())
	}
	// What other programs mount meanwhile is not seen here.
	if code, ended := rig.Apart(); ended {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// exactDevice is a root with real packages, and the Source that moves it.
type exactDevice struct {
	t      *testing.T
	root   string
	source *Source
	record Deployment
}

// stateID makes the id of a state of a digit.
func stateID(n int) string { return strings.Repeat(fmt.Sprint(n), 64) }

// fleet makes devices that are installed alike, as a factory does.
type fleet struct {
	t       *testing.T
	archive *apttest.Archive
	factory string // a root
	base    []byte // stanzas
	boms    map[int]*bom.BOM
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{t: t, archive: apttest.New(t), factory: apttest.Root(t, memoryDir(t)), boms: map[int]*bom.BOM{}}
	f.base = apttest.AsIs(t, f.factory)
	return f
}

// updater is a package with what VERIFY wants to find.
func updater() apttest.Package {
	p := apttest.Package{Name: "device-updater", Version: "1", Files: map[string]string{}, Modes: map[string]os.FileMode{"usr/bin/device-updater": 0o755}}
	for _, name := range updaterFiles {
		p.Files[name] = "x\n"
	}
	p.Files["usr/bin/device-updater"] = "#!/bin/sh\necho device-updater 1.0\n"
	return p
}

// release publishes state n; its bill of materials is what apt computes.
func (f *fleet) release(n int, packages ...apttest.Package) {
	f.t.Helper()
	f.archive.Release(stateID(n), f.base, append(packages, updater()), "dev")
	d := f.device(f.factory)
	top := []string{"apt", "device-updater"}
	for _, p := range packages {
		if strings.Contains(p.Fields, "X-Top: yes") {
			top = append(top, p.Name)
		}
	}
	slices.Sort(top)
	d.source.TopLevel = top
	if _, err := d.source.Offer(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	if err := d.source.open(f.t.Context(), Offer{State: stateID(n)}); err != nil {
		f.t.Fatal(err)
	}
	list, err := d.source.private.Solve(f.t.Context(), top)
	if err != nil {
		f.t.Fatal(err)
	}
	b := &bom.BOM{State: stateID(n), Product: "gateway", Architecture: f.archive.Native, TopLevel: top}
	for _, p := range list {
		b.Packages = append(b.Packages, bom.Package{Name: p.Name, Architecture: p.Architecture, Version: p.Version, SHA256: p.SHA256})
	}
	f.boms[n] = b
}

// device uses root.
func (f *fleet) device(root string) *exactDevice {
	f.t.Helper()
	records, err := OpenRecords(f.t.TempDir())
	if err != nil {
		f.t.Fatal(err)
	}
	source := &Source{
		Client: &archive.Client{HTTP: http.DefaultClient, URL: f.archive.URL, Distribution: "trixie", Keyring: f.archive.Keyring, Clock: time.Now},
		Base:   "demo/dev", StateBase: func(state string) string { return "demo/states/" + state }, Components: []string{"main"},
		Dir: filepath.Join(f.t.TempDir(), "apt"), Records: records, Run: sandbox.Run,
	}
	return &exactDevice{t: f.t, root: root, source: source, record: Deployment{ID: 1}}
}

// fresh is a new device from the factory.
func (f *fleet) fresh() *exactDevice {
	f.t.Helper()
	root := filepath.Join(memoryDir(f.t), "root")
	if out, err := exec.Command("cp", "-a", "--reflink=auto", f.factory, root).CombinedOutput(); err != nil {
		f.t.Fatalf("%v\n%s", err, out)
	}
	d := f.device(root)
	d.remember(d.record)
	return d
}

// remember does what init does in the factory.
func (d *exactDevice) remember(record Deployment) {
	d.t.Helper()
	file, err := os.Create(d.source.Records.Manifest(record.ID))
	if err != nil {
		d.t.Fatal(err)
	}
	if err := errors.Join(rootfs.WriteManifest(d.t.Context(), file, d.root, nil), file.Close()); err != nil {
		d.t.Fatal(err)
	}
}

// move takes the device to a release in the steps of a transaction, in place,
// and returns what was printed.
func (d *exactDevice) move(b *bom.BOM, overlay ...LocalPackage) (string, error) {
	d.t.Helper()
	ctx := d.t.Context()
	o := Offer{State: b.State, BOM: b, Overlay: overlay, Booted: true}
	plan, err := d.source.Plan(ctx, o, d.root, d.record)
	if err != nil || plan.Empty() {
		return "", err
	}
	if err := d.source.Download(ctx, o, plan, d.root, func(Progress) {}); err != nil {
		return "", err
	}
	var log bytes.Buffer
	if err := d.source.Install(ctx, o, plan, d.root, &log); err != nil {
		return log.String(), err
	}
	var manifest bytes.Buffer
	if err := d.source.Verify(ctx, plan, d.root, &manifest); err != nil {
		return log.String(), err
	}
	d.record = Deployment{ID: d.record.ID + 1, State: b.State, Packages: plan.List, Overlay: overlay}
	if err := os.WriteFile(d.source.Records.Manifest(d.record.ID), manifest.Bytes(), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return log.String(), nil
}

func (d *exactDevice) mustMove(b *bom.BOM, overlay ...LocalPackage) {
	d.t.Helper()
	if log, err := d.move(b, overlay...); err != nil {
		d.t.Fatalf("%v\n%s", err, log)
	}
}

func (d *exactDevice) inside(script string) {
	d.t.Helper()
	var out bytes.Buffer
	if err := sandbox.Run(d.t.Context(), sandbox.Command{Root: d.root, Argv: []string{"sh", "-ec", script}}, &out); err != nil {
		d.t.Fatalf("%s: %v\n%s", script, err, &out)
	}
}

func (d *exactDevice) compare() drift.Report {
	d.t.Helper()
	r, err := Compare(d.t.Context(), d.source.Records, d.root, d.record.ID)
	if err != nil {
		d.t.Fatal(err)
	}
	return r
}

// files describes everything in the root.
func (d *exactDevice) files() map[string]string {
	d.t.Helper()
	var text bytes.Buffer
	if err := rootfs.WriteManifest(d.t.Context(), &text, d.root, nil); err != nil {
		d.t.Fatal(err)
	}
	all := map[string]string{}
	for line := range strings.Lines(text.String()) {
		i := strings.Index(line, ` "/`)
		if j := strings.Index(line[i+1:], `" - "/`); strings.HasPrefix(line, "l ") && j >= 0 {
			i += 1 + j + len(`" -`)
		}
		all[strings.TrimSpace(line[i:])] = line[:i]
	}
	return all
}

// samePackages compares two devices file by file, but for the named paths.
func samePackages(t *testing.T, a, b *exactDevice, but ...string) {
	t.Helper()
	one, other := a.files(), b.files()
	all := maps.Clone(one)
	maps.Copy(all, other)
	for _, path := range slices.Sorted(maps.Keys(all)) {
		skip := slices.ContainsFunc(but, func(p string) bool { return strings.HasPrefix(path, `"`+p) })
		if !skip && one[path] != other[path] {
			t.Errorf("%s is\n\t%s, and on the other\n\t%s", path, one[path], other[path])
		}
	}
	if len(all) < 1000 {
		t.Errorf("only %d files were compared", len(all))
	}
	for _, d := range []*exactDevice{a, b} {
		// The judge of dpkg: only configuration files may differ.
		out, err := exec.Command("dpkg", "--root="+d.root, "--verify").CombinedOutput()
		for line := range strings.Lines(string(out)) {
			fields := strings.Fields(line)
			skip := slices.ContainsFunc(but, func(p string) bool { return strings.HasPrefix(fields[len(fields)-1], p) })
			if !skip && (len(fields) < 3 || fields[1] != "c") {
				t.Errorf("dpkg --verify: %s (%v)", line, err)
			}
		}
		packages, err := Mismatch(d.root, d.record)
		if err != nil || packages != "" {
			t.Errorf("%s, %v", packages, err)
		}
	}
}

// The releases of these tests: 2 adds a package that 3 has no more, 4 is newer
// than 3 and lacks a tool that 1 and 3 have.
func (f *fleet) ship() {
	f.t.Helper()
	app := func(version string, files map[string]string) apttest.Package {
		files["usr/share/app/version"] = version + "\n"
		files["etc/app.conf"] = "of " + version + "\n"
		return apttest.Package{
			Name: "app", Version: version, Fields: "X-Top: yes\n", Files: files,
			Modes: map[string]os.FileMode{"usr/bin/app": 0o755}, Links: map[string]string{"usr/bin/app-link": "app"},
		}
	}
	tool := apttest.Package{
		Name: "tool", Version: "1:1.0", Fields: "X-Top: yes\n",
		Files: map[string]string{"usr/bin/tool": "#!/bin/sh\necho tool\n", "usr/share/tool/a/data": "data\n", "usr/share/tool/more": "more\n", "etc/tool.conf": "x\n", "etc/tool2.conf": "y\n"},
		Modes: map[string]os.FileMode{"usr/bin/tool": 0o755},
		Links: map[string]string{"usr/share/tool/link": "more"},
		Scripts: map[string]string{
			"postinst": "update-alternatives --install /usr/bin/any-tool any-tool /usr/bin/tool 10",
			"prerm":    "if [ \"$1\" = remove ]; then update-alternatives --remove any-tool /usr/bin/tool; fi",
		},
	}
	raw := apttest.Package{Name: "raw", Version: "1", Fields: "X-Top: yes\n", NoSums: true, Files: map[string]string{"usr/share/raw/one": "1\n", "usr/share/raw/two": "2\n"}}
	extra := apttest.Package{Name: "extra", Version: "1", Files: map[string]string{"usr/share/extra/x": "x\n", "etc/extra.conf": "x\n"}}
	f.release(1, app("1", map[string]string{"usr/bin/app": "one"}), tool, raw)
	two := app("2", map[string]string{"usr/bin/app": "two", "usr/share/app/extra": "x"})
	two.Fields += "Depends: extra\n"
	f.release(2, two, tool, raw, extra)
	f.release(3, app("3", map[string]string{"usr/bin/app": "three"}), tool, raw)
	four := app("4", map[string]string{"usr/bin/app": "four", "usr/share/app/new": "x"})
	four.Fields += "Depends: extra\n"
	f.release(4, four, raw, extra)
}

// damages are what people do to a root that they can write to.
var damages = map[string]func(root string) error{
	"a program edited":      func(root string) error { return os.WriteFile(root+"/usr/bin/tool", []byte("rm -rf\n"), 0o755) },
	"another program":       func(root string) error { return os.WriteFile(root+"/usr/bin/app", []byte("mine"), 0o755) },
	"a file removed":        func(root string) error { return os.Remove(root + "/usr/share/tool/more") },
	"a directory removed":   func(root string) error { return os.RemoveAll(root + "/usr/share/tool") },
	"without sums, edited":  func(root string) error { return os.WriteFile(root+"/usr/share/raw/one", []byte("!\n"), 0o644) },
	"without sums, removed": func(root string) error { return os.Remove(root + "/usr/share/raw/two") },
	"a mode":                func(root string) error { return os.Chmod(root+"/usr/bin/tool", 0o777) },
	"a set-id bit":          func(root string) error { return os.Chmod(root+"/usr/bin/tool", 0o755|os.ModeSetuid) },
	"an owner":              func(root string) error { return os.Chown(root+"/usr/share/raw/one", 7, 7) },
	"an attribute": func(root string) error {
		return unix.Lsetxattr(root+"/usr/share/tool/more", "trusted.x", []byte("y"), 0)
	},
	"a link's target": func(root string) error {
		return errors.Join(os.Remove(root+"/usr/share/tool/link"), os.Symlink("/etc/passwd", root+"/usr/share/tool/link"))
	},
	"a link for a file": func(root string) error {
		return errors.Join(os.Rename(root+"/usr/bin/tool", root+"/usr/bin/tool.mine"), os.Symlink("tool.mine", root+"/usr/bin/tool"))
	},
	"a directory for a file": func(root string) error {
		return errors.Join(os.Remove(root+"/usr/bin/tool"), os.MkdirAll(root+"/usr/bin/tool/deep", 0o755))
	},
	"a link for a directory": func(root string) error {
		return errors.Join(os.MkdirAll(root+"/opt", 0o755), os.Rename(root+"/usr/share/tool", root+"/opt/tool"), os.Symlink("/opt/tool", root+"/usr/share/tool"))
	},
	"a directory's mode":  func(root string) error { return os.Chmod(root+"/usr/share/tool/a", 0o777) },
	"a directory's owner": func(root string) error { return os.Chown(root+"/usr/share/tool", 7, 7) },
	"a directory's attribute": func(root string) error {
		return unix.Lsetxattr(root+"/usr/share/tool/a", "trusted.x", []byte("y"), 0)
	},
}

// kept are what damages leave that belongs to no package.
var kept = []string{"/opt/tool", "/usr/bin/tool.mine"}

// TestExact moves real roots with apt and dpkg. Its parts share the releases.
func TestExact(t *testing.T) {
	f := newFleet(t)
	f.ship()
	direct := f.fresh()
	direct.mustMove(f.boms[3])
	for name, part := range map[string]func(*testing.T, *fleet, *exactDevice){
		"histories end alike": historiesEndAlike, "damage is mended": damageIsMended, "what the administrator may do": administrator,
		"bills of materials that are refused": refusedBills, "disturbed": disturbed, "overlays": overlays,
	} {
		t.Run(name, func(t *testing.T) {
			shared := *f
			shared.t = t
			part(t, &shared, direct)
		})
	}
}

// historiesEndAlike: by whatever way and with whatever was done to it on the
// way, a device ends as one that was installed with the release at once.
func historiesEndAlike(t *testing.T, f *fleet, direct *exactDevice) {
	for _, history := range [][]int{{1, 2, 3}, {4, 1, 4, 3}} {
		t.Run(fmt.Sprint(history), func(t *testing.T) {
			d := f.fresh()
			for _, n := range history {
				d.mustMove(f.boms[n])
			}
			samePackages(t, direct, d)
		})
	}
	t.Run("a hold", func(t *testing.T) {
		d := f.fresh()
		d.mustMove(f.boms[1])
		d.inside("apt-mark hold tool app base-files; apt-mark auto tool")
		d.mustMove(f.boms[3])
		samePackages(t, direct, d)
		d.inside("apt-mark hold tool; chmod 700 /usr/share/tool")
		d.mustMove(f.boms[3])
		samePackages(t, direct, d)
	})
	t.Run("random", func(t *testing.T) {
		names := slices.Sorted(maps.Keys(damages))
		seed := rand.Uint64()
		random := rand.New(rand.NewPCG(seed, 0))
		d := f.fresh()
		var did []string
		for range 2 {
			n := 1 + 2*random.IntN(2) // one that has the tool
			did = append(did, fmt.Sprint("release ", n))
			d.mustMove(f.boms[n])
			for range 1 + random.IntN(3) {
				name := names[random.IntN(len(names))]
				if damages[name](d.root) == nil {
					did = append(did, name)
				}
			}
		}
		t.Logf("seed %d: %v", seed, did)
		d.mustMove(f.boms[3])
		samePackages(t, direct, d, kept...)
	})
}

// damageIsMended: each kind is seen, and gone with the next installation, of
// another release or of the same.
func damageIsMended(t *testing.T, f *fleet, direct *exactDevice) {
	d := f.fresh()
	d.mustMove(f.boms[1])
	d.mustMove(f.boms[3])
	for _, group := range []struct {
		to   int
		what map[string]string // damage → the path that is told
	}{
		{3, map[string]string{
			"a program edited": "/usr/bin/tool", "another program": "/usr/bin/app", "a file removed": "/usr/share/tool/more", "without sums, edited": "/usr/share/raw/one",
			"without sums, removed": "/usr/share/raw/two", "a directory's mode": "/usr/share/tool/a", "a link's target": "/usr/share/tool/link",
		}},
		{3, map[string]string{"a mode": "/usr/bin/tool", "an owner": "/usr/share/raw/one", "an attribute": "/usr/share/tool/more", "a directory's owner": "/usr/share/tool"}},
		{3, map[string]string{"a directory's attribute": "/usr/share/tool/a"}},
		{1, map[string]string{"a directory removed": "/usr/share/tool/a/data", "a set-id bit": "/usr/bin/tool"}},
		{3, map[string]string{"a link for a file": "/usr/bin/tool"}},
		{3, map[string]string{"a directory for a file": "/usr/bin/tool", "a link for a directory": "/usr/share/tool/more"}},
	} {
		for name := range group.what {
			if err := damages[name](d.root); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		seen := d.compare()
		for name, path := range group.what {
			if !slices.ContainsFunc(seen.Damage, func(x drift.Damage) bool { return x.Path == path }) {
				t.Errorf("%s was not seen: %+v", name, seen.Damage)
			}
		}
		d.mustMove(f.boms[group.to])
		if group.to == 3 {
			samePackages(t, direct, d, kept...)
		}
		if r := d.compare(); len(r.Damage) > 0 {
			t.Errorf("after %v: %+v", group.what, r.Damage)
		}
	}
}

// administrator: what is his stays, and is told.
func administrator(t *testing.T, f *fleet, direct *exactDevice) {
	d := f.fresh()
	d.mustMove(f.boms[1])
	d.inside(`echo local >>/etc/tool.conf; rm /etc/tool2.conf; echo local >/etc/app.conf
		dpkg-divert --local --rename --divert /usr/bin/app.release --add /usr/bin/app; echo mine >/usr/bin/app
		dpkg-statoverride --update --add root mail 2755 /usr/bin/tool
		update-alternatives --install /usr/bin/any-tool any-tool /bin/true 50
		mkdir -p /opt/vendor/deep; echo x >/opt/vendor/deep/file; echo x >/usr/share/tool/by-hand
		printf 'path-exclude=/usr/share/raw/*\n' >/etc/dpkg/dpkg.cfg.d/slim; rm /usr/share/raw/*`)
	check := func(when string) {
		t.Helper()
		r := d.compare()
		config := fmt.Sprint(r.Config)
		if len(r.Damage) > 0 || config != "[{/etc/app.conf app false} {/etc/tool.conf tool false} {/etc/tool2.conf tool true}]" ||
			!slices.Equal(r.Diverted, []string{"/usr/bin/app"}) || !slices.Equal(r.Overrides, []string{"/usr/bin/tool"}) ||
			!slices.Contains(r.Unowned, "/opt/vendor/") || !slices.Contains(r.Unowned, "/usr/share/tool/by-hand") {
			t.Errorf("%s: %+v, %s, %v, %v, %v", when, r.Damage, config, r.Diverted, r.Overrides, r.Unowned)
		}
	}
	check("before")
	// So that the package is unpacked anew, whose settings he changed.
	if err := damages["a file removed"](d.root); err != nil {
		t.Fatal(err)
	}
	d.mustMove(f.boms[3])
	check("after")
	samePackages(t, direct, d, "/etc", "/var/lib/dpkg", "/opt/vendor", "/usr/share/tool/by-hand", "/usr/bin/app", "/usr/bin/tool", "/usr/bin/any-tool", "/usr/share/raw")
	files := d.files()
	for path, want := range map[string]string{`"/usr/bin/app.release"`: direct.files()[`"/usr/bin/app"`], `"/usr/bin/any-tool"`: direct.files()[`"/usr/bin/any-tool"`]} {
		if files[path] != want {
			t.Errorf("%s is %s, want %s", path, files[path], want)
		}
	}
}

// refusedBills: each with the name of the package.
func refusedBills(t *testing.T, f *fleet, _ *exactDevice) {
	d := f.fresh()
	d.mustMove(f.boms[1])
	change := func(name string, do func(*bom.Package)) *bom.BOM {
		b := *f.boms[2]
		b.Packages = slices.Clone(b.Packages)
		b.Packages = slices.DeleteFunc(b.Packages, func(p bom.Package) bool { return p.Name == name && do == nil })
		for i := range b.Packages {
			if b.Packages[i].Name == name {
				do(&b.Packages[i])
			}
		}
		return &b
	}
	for _, c := range []struct {
		name string
		b    *bom.BOM
		says string
	}{
		{"another version", change("app", func(p *bom.Package) { p.Version = "2.1" }), "'2.1' for 'app'"},
		{"a package that is not", change("extra", func(p *bom.Package) { p.Name = "nowhere" }), "nowhere"},
		{"another hash", change("app", func(p *bom.Package) { p.SHA256 = strings.Repeat("a", 64) }), "app:all=2 has SHA-256"},
		{"another architecture", change("app", func(p *bom.Package) { p.Architecture = f.archive.Native }), "app"},
		{"without an essential one", change("base-files", nil), "base-files"},
		{"without what others need", change("extra", nil), "lacks extra:all=1"},
		{"of another state", func() *bom.BOM { b := *f.boms[1]; b.State = stateID(2); return &b }(), "app"},
		{"without the updater in it", change("device-updater", nil), "/usr/bin/device-updater"},
	} {
		t.Run(c.name, func(t *testing.T) {
			log, err := d.move(c.b)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("want an error about %s, got %v\n%s", c.says, err, log)
			}
			var kind *archive.Error
			if c.name != "without the updater in it" && (!errors.As(err, &kind) || kind.Kind != archive.Package) {
				t.Errorf("%v is not of the kind %q", err, archive.Package)
			}
		})
	}
}

// disturbed: who edits a file while an update is prepared does not make a
// release bad; a package that spoils its own files does.
func disturbed(t *testing.T, f *fleet, _ *exactDevice) {
	spoiled := apttest.Package{
		Name: "app", Version: "5", Fields: "X-Top: yes\n", Files: map[string]string{"usr/share/app/version": "5\n"},
		Scripts: map[string]string{"postinst": "echo x >>/usr/share/app/version"},
	}
	f.release(5, spoiled)
	d := f.fresh()
	d.mustMove(f.boms[1])
	run := d.source.Run
	d.source.Run = func(ctx context.Context, c sandbox.Command, out io.Writer) error {
		if err := run(ctx, c, out); err != nil {
			return err
		}
		return os.WriteFile(d.root+"/usr/bin/tool", []byte("just now\n"), 0o755)
	}
	if _, err := d.move(f.boms[3]); !errors.Is(err, errDisturbed) || !strings.Contains(err.Error(), "/usr/bin/tool") {
		t.Errorf("%v", err)
	}
	d.source.Run = run
	d.mustMove(f.boms[3])
	if _, err := d.move(f.boms[5]); err == nil || errors.Is(err, errDisturbed) || !strings.Contains(err.Error(), "/usr/share/app/version") {
		t.Errorf("%v", err)
	}
}
