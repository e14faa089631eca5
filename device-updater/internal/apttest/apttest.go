// Package apttest serves archives of hand-made packages to tests: signed as a
// server signs them, made by dpkg-deb.
package apttest

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/sign"
	"aptfleet/test/debian"
)

// Package is a package to make.
type Package struct {
	Name, Version string
	Architecture  string            // "" for all
	Fields        string            // more of the control file, each line with its end
	Files         map[string]string // content by path without a slash; those in etc/ are conffiles
	Modes         map[string]os.FileMode
	Links         map[string]string // target by path
	Scripts       map[string]string // "postinst" and so on, without the first line
	Templates     string            // questions of debconf
	NoSums        bool              // without md5sums
}

// Archive is an archive on loopback.
type Archive struct {
	URL     string
	Keyring string // path
	Native  string // this machine's architecture
	t       testing.TB
	Dir     string // its files
	key     *sign.Key
}

// New serves an empty archive until the test ends.
func New(t testing.TB) *Archive {
	t.Helper()
	key, err := sign.Generate("Archive", "archive@aptfleet.example", time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := key.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	a := &Archive{t: t, Dir: t.TempDir(), key: key}
	if a.Native, err = debian.Architecture(t.Context()); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.FileServer(http.Dir(a.Dir)))
	t.Cleanup(server.Close)
	a.URL = server.URL
	a.Write("keyring.asc", certificate)
	a.Keyring = filepath.Join(a.Dir, "keyring.asc")
	return a
}

// Write puts a file into the archive.
func (a *Archive) Write(name string, content []byte) {
	a.t.Helper()
	path := filepath.Join(a.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		a.t.Fatal(err)
	}
}

// Files returns all that is in the archive, by path.
func (a *Archive) Files() map[string][]byte {
	a.t.Helper()
	all := make(map[string][]byte)
	err := fs.WalkDir(os.DirFS(a.Dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			all[name], err = os.ReadFile(filepath.Join(a.Dir, name))
		}
		return err
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return all
}

// Deb makes the package and returns the path of the .deb.
func (a *Archive) Deb(p Package) string {
	a.t.Helper()
	tree := a.t.TempDir()
	arch := p.Architecture
	if arch == "" {
		arch = "all"
	}
	put := func(name, content string, mode os.FileMode) {
		a.t.Helper()
		path := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			a.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			a.t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			a.t.Fatal(err)
		}
	}
	var conffiles, sums string
	for _, name := range slices.Sorted(maps.Keys(p.Files)) {
		mode := p.Modes[name]
		if mode == 0 {
			mode = 0o644
		}
		put(name, p.Files[name], mode)
		if strings.HasPrefix(name, "etc/") {
			conffiles += "/" + name + "\n"
		} else {
			sums += fmt.Sprintf("%x  %s\n", md5.Sum([]byte(p.Files[name])), name)
		}
	}
	for name, target := range p.Links {
		path := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			a.t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			a.t.Fatal(err)
		}
	}
	put("DEBIAN/control", fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: A <a@aptfleet.example>\nDescription: x\n%s", p.Name, p.Version, arch, p.Fields), 0o644)
	if conffiles != "" {
		put("DEBIAN/conffiles", conffiles, 0o644)
	}
	if !p.NoSums {
		put("DEBIAN/md5sums", sums, 0o644)
	}
	if p.Templates != "" {
		put("DEBIAN/templates", p.Templates, 0o644)
	}
	for name, text := range p.Scripts {
		put("DEBIAN/"+name, "#!/bin/sh\nset -e\n"+text+"\n", 0o755)
	}
	if err := os.Chmod(tree, 0o755); err != nil {
		a.t.Fatal(err)
	}
	// dpkg-deb writes times into the archive: the same package has the same bytes.
	stamp := time.Unix(1_700_000_000, 0)
	deb := filepath.Join(a.t.TempDir(), fmt.Sprintf("%s_%s_%s.deb", p.Name, strings.ReplaceAll(p.Version, ":", "."), arch))
	cmd := exec.Command("dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, deb)
	cmd.Env = append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", stamp.Unix()))
	if out, err := cmd.CombinedOutput(); err != nil {
		a.t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
	return deb
}

// Release publishes packages, and stanzas of packages that are never fetched,
// as the state of that id, and below each of the stages.
func (a *Archive) Release(state string, stanzas []byte, packages []Package, stages ...string) {
	a.t.Helper()
	index, pool := a.index(stanzas, packages)
	for _, base := range append([]string{"states/" + state}, stages...) {
		a.publish("demo/"+base, "Label: demo\nSuite: "+base+"\nAptfleet-State: "+state+"\n", index, pool)
	}
}

// Publish publishes packages, and stanzas of packages that are never fetched,
// as the contents of any base.
func (a *Archive) Publish(base string, stanzas []byte, packages []Package) {
	a.t.Helper()
	index, pool := a.index(stanzas, packages)
	a.publish(base, "", index, pool)
}

// index makes packages, and the index of them and of stanzas.
func (a *Archive) index(stanzas []byte, packages []Package) (index []byte, pool map[string][]byte) {
	a.t.Helper()
	var out bytes.Buffer
	pool = map[string][]byte{}
	for _, p := range packages {
		deb := a.Deb(p)
		content, err := os.ReadFile(deb)
		if err != nil {
			a.t.Fatal(err)
		}
		control, err := exec.Command("dpkg-deb", "-f", deb).Output()
		if err != nil {
			a.t.Fatal(err)
		}
		pool["pool/"+filepath.Base(deb)] = content
		fmt.Fprintf(&out, "%sFilename: pool/%s\nSize: %d\nSHA256: %x\n\n", control, filepath.Base(deb), len(content), sha256.Sum256(content))
	}
	out.Write(stanzas)
	return out.Bytes(), pool
}

// publish writes a base; fields are more of its InRelease.
func (a *Archive) publish(base, fields string, index []byte, pool map[string][]byte) {
	a.t.Helper()
	path := "main/binary-" + a.Native + "/Packages"
	dists := base + "/dists/trixie/"
	a.Write(dists+path, index)
	for name, content := range pool {
		a.Write(base+"/"+name, content)
	}
	release := fmt.Sprintf("Origin: Aptfleet\nCodename: trixie\n%sDate: %s\nArchitectures: %s\nComponents: main\nSHA256:\n %x %d %s\n",
		fields, time.Now().UTC().Add(-time.Minute).Format(time.RFC1123), a.Native, sha256.Sum256(index), len(index), path)
	signed, err := a.key.ClearSign([]byte(release), time.Now().Add(-time.Minute))
	if err != nil {
		a.t.Fatal(err)
	}
	a.Write(dists+"InRelease", signed)
}

// AsIs returns the stanzas of everything installed in root, for a release that
// keeps it all. None of it can be fetched.
func AsIs(t testing.TB, root string) []byte {
	t.Helper()
	status, err := os.ReadFile(filepath.Join(root, "var/lib/dpkg/status"))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for i, stanza := range strings.Split(strings.TrimSpace(string(status)), "\n\n") {
		lines := slices.DeleteFunc(strings.Split(stanza, "\n"), func(l string) bool { return strings.HasPrefix(l, "Status: ") })
		fmt.Fprintf(&out, "%s\nFilename: pool/none%d.deb\nSize: 1\nSHA256: %064x\n\n", strings.Join(lines, "\n"), i, i+1)
	}
	return out.Bytes()
}

// Root unpacks a real trixie root below dir.
func Root(t testing.TB, dir string) string {
	t.Helper()
	tar, err := debian.Root(t.Context(), debian.Spec{Suite: "trixie"})
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := debian.Unpack(t.Context(), tar, root); err != nil {
		t.Fatal(err)
	}
	return root
}
