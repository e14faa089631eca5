package deb_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"aptfleet/internal/deb"
)

// machine is an apt of its own with this machine's sources: real indices and
// real packages.
type machine struct {
	t   *testing.T
	dir string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	needs(t, "apt-get", "apt-cache", "dpkg-deb")
	m := &machine{t: t, dir: t.TempDir()}
	for _, dir := range []string{"state/lists/partial", "cache/archives/partial", "debs"} {
		if err := os.MkdirAll(filepath.Join(m.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.run("apt-get", "--quiet", "update")
	return m
}

// run runs one of apt's programs and returns what it prints.
func (m *machine) run(name string, args ...string) []byte {
	m.t.Helper()
	cmd := exec.Command(name, append([]string{
		"-o", "Dir::State=" + m.dir + "/state", "-o", "Dir::Cache=" + m.dir + "/cache", "-o", "Dir::State::status=/dev/null",
		"-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none",
	}, args...)...)
	cmd.Dir = filepath.Join(m.dir, "debs")
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return out
}

// indices returns the text of every Packages file.
func (m *machine) indices() [][]byte {
	m.t.Helper()
	var texts [][]byte
	for name := range strings.Lines(string(m.run("apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: Packages"))) {
		texts = append(texts, m.run("/usr/lib/apt/apt-helper", "cat-file", strings.TrimSpace(name)))
	}
	if len(texts) == 0 {
		m.t.Fatal("apt has no index")
	}
	return texts
}

// TestDebianIndices reads every package of the release that this machine
// follows. The text of the index must come out again byte by byte; dpkg's own
// library is asked about the order of versions, apt-cache about stanzas and
// relations.
func TestDebianIndices(t *testing.T) {
	m := newMachine(t)
	var stanzas []deb.Stanza
	for _, text := range m.indices() {
		reader := deb.NewStanzaReader(bytes.NewReader(text), deb.MaxStanza)
		var again bytes.Buffer
		for {
			stanza, err := reader.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("after %d stanzas: %v", len(stanzas), err)
			}
			again.Write(stanza.Bytes())
			again.WriteByte('\n')
			stanzas = append(stanzas, stanza)
		}
		if !bytes.Equal(again.Bytes(), text) {
			t.Errorf("an index of %d bytes comes out as %d others", len(text), again.Len())
		}
	}
	var versions []string
	for _, s := range stanzas {
		name := s.Get("Package")
		if err := errors.Join(deb.ValidPackageName(name), deb.ValidArchitecture(s.Get("Architecture"))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := deb.ParseVersion(s.Get("Version")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		versions = append(versions, s.Get("Version"))
		for _, field := range []string{"Pre-Depends", "Depends", "Recommends", "Suggests", "Enhances", "Breaks", "Conflicts", "Replaces", "Provides"} {
			groups, err := deb.ParseRelations(s.Get(field))
			if err != nil {
				t.Errorf("%s: %s: %v", name, field, err)
			}
			var written []string
			for _, group := range groups {
				var alternatives []string
				for _, r := range group {
					alternatives = append(alternatives, r.String())
				}
				written = append(written, strings.Join(alternatives, " | "))
			}
			if got, want := strings.Join(written, ", "), strings.Join(strings.Fields(s.Get(field)), " "); got != want {
				t.Errorf("%s: %s comes out as %q from %q", name, field, got, want)
			}
		}
	}
	t.Logf("%d packages", len(stanzas))
	if len(stanzas) < 50_000 {
		t.Errorf("only %d packages: no Debian release is that small", len(stanzas))
	}
	t.Run("versions", func(t *testing.T) { agreeWithDpkgsLibrary(t, versions) })
	t.Run("apt-cache", func(t *testing.T) { agreeWithAptCache(t, m, stanzas) })
}

// agreeWithDpkgsLibrary compares pairs of real versions: neighbours in the
// order of bytes, which differ little, and any two.
func agreeWithDpkgsLibrary(t *testing.T, versions []string) {
	needs(t, "perl")
	slices.Sort(versions)
	versions = slices.Compact(versions)
	random := rand.New(rand.NewPCG(3, 4))
	var pairs [][2]string
	for i := range versions[1:] {
		if i%3 == 0 {
			pairs = append(pairs, [2]string{versions[i], versions[i+1]}, [2]string{versions[i], versions[random.IntN(len(versions))]})
		}
	}
	var question bytes.Buffer
	for _, p := range pairs {
		fmt.Fprintf(&question, "%s %s\n", p[0], p[1])
	}
	cmd := exec.Command("perl", "-MDpkg::Version", "-nle", `my ($a, $b) = split / /; print version_compare($a, $b)`)
	cmd.Stdin = &question
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("cannot ask dpkg's library: %v", err)
	}
	answers := strings.Fields(string(out))
	if len(answers) != len(pairs) {
		t.Fatalf("%d answers for %d pairs", len(answers), len(pairs))
	}
	for i, p := range pairs {
		if got := fmt.Sprint(sign(deb.Compare(p[0], p[1]))); got != answers[i] {
			t.Errorf("Compare(%q, %q) = %s, dpkg says %s", p[0], p[1], got, answers[i])
		}
	}
	t.Logf("%d pairs of versions", len(pairs))
}

// relationFields are those that apt-cache showpkg prints.
var relationFields = []string{"Pre-Depends", "Depends", "Recommends", "Suggests", "Enhances", "Breaks", "Conflicts", "Replaces"}

// comparisons are apt's numbers for operators; 16 is added where another
// alternative follows.
var comparisons = map[string]int{"": 0, "<=": 1, ">=": 2, "<<": 3, ">>": 4, "=": 5}

// agreeWithAptCache asks for some packages how apt understands them.
func agreeWithAptCache(t *testing.T, m *machine, stanzas []deb.Stanza) {
	random := rand.New(rand.NewPCG(5, 6))
	var sample []deb.Stanza
	var names []string
	times := make(map[string]int) // apt-cache shows one of what several indices have
	for _, s := range stanzas {
		times[s.Get("Package")+" "+s.Get("Version")]++
	}
	for len(sample) < 300 {
		s := stanzas[random.IntN(len(stanzas))]
		if times[s.Get("Package")+" "+s.Get("Version")] > 1 {
			continue
		}
		sample, names = append(sample, s), append(names, s.Get("Package"))
	}
	// apt-cache translates the description; all other fields are as they came.
	plain := func(s deb.Stanza) string { return string(s.Without("Description").Without("Description-md5").Bytes()) }
	shown := make(map[string]bool)
	reader := deb.NewStanzaReader(bytes.NewReader(m.run("apt-cache", append([]string{"show"}, names...)...)), deb.MaxStanza)
	for {
		s, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		shown[plain(s)] = true
	}
	relations := dependencies(string(m.run("apt-cache", append([]string{"showpkg"}, names...)...)))
	for _, s := range sample {
		if !shown[plain(s)] {
			t.Errorf("apt-cache shows another stanza than\n%s", plain(s))
		}
		var want []string
		for _, field := range relationFields {
			groups, err := deb.ParseRelations(s.Get(field))
			if err != nil {
				t.Fatal(err)
			}
			for _, group := range groups {
				for i, r := range group {
					name, number, version := r.Name, comparisons[r.Op], cmp.Or(r.Version, "(null)")
					if r.ArchQualifier != "" {
						name += ":" + r.ArchQualifier
					}
					if i < len(group)-1 {
						number += 16
					}
					want = append(want, fmt.Sprintf("%s (%d %s)", name, number, version))
				}
			}
		}
		slices.Sort(want)
		key := s.Get("Package") + " " + s.Get("Version")
		// apt adds conflicts with other architectures by itself.
		got := slices.DeleteFunc(relations[key], func(relation string) bool {
			name, _, _ := strings.Cut(relation, " ")
			return strings.Contains(name, ":") && !slices.Contains(want, relation)
		})
		if !slices.Equal(got, want) {
			t.Errorf("%s: apt sees %q, we see %q", key, got, want)
		}
	}
}

// dependencies reads what apt-cache showpkg prints: for each "name version" its
// relations, sorted, as "name (number version)".
func dependencies(text string) map[string][]string {
	all := make(map[string][]string)
	var name string
	inside := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \n")
		switch {
		case strings.HasPrefix(line, "Package: "):
			name = strings.TrimPrefix(line, "Package: ")
		case line == "Dependencies:":
			inside = true
		case line == "Provides:":
			inside = false
		case inside:
			version, rest, _ := strings.Cut(line, " - ")
			var found []string
			for rest != "" {
				var one string
				// The version of a relation may be "(null)".
				if end := strings.Index(rest, " (null))"); end >= 0 && !strings.Contains(rest[:end], ")") {
					one, rest = rest[:end+len(" (null))")], rest[end+len(" (null))"):]
				} else {
					end := strings.Index(rest, ")")
					one, rest = rest[:end+1], rest[end+1:]
				}
				found = append(found, one)
				rest = strings.TrimPrefix(rest, " ")
			}
			slices.Sort(found)
			all[name+" "+version] = found
		}
	}
	return all
}

// debianSample are real packages of many kinds: shared libraries, data, long
// lists of conffiles, triggers, no dependencies, large control archives.
var debianSample = []string{
	"base-files", "dash", "libc6", "tzdata", "passwd", "ca-certificates", "libc-bin", "hostname", "dpkg", "xz-utils", "debconf", "sysvinit-utils",
}

// TestDebianPackages reads real packages as they are, and small ones repacked
// with every compression that dpkg-deb knows.
func TestDebianPackages(t *testing.T) {
	m := newMachine(t)
	m.run("apt-get", append([]string{"--quiet", "download"}, debianSample...)...)
	files, err := filepath.Glob(filepath.Join(m.dir, "debs", "*.deb"))
	if err != nil || len(files) != len(debianSample) {
		t.Fatalf("%d packages were downloaded of %d: %v", len(files), len(debianSample), err)
	}
	repacked := t.TempDir()
	for i, file := range files {
		agreeWithDpkgDeb(t, file)
		if name := filepath.Base(file); !strings.HasPrefix(name, "hostname_") && !strings.HasPrefix(name, "base-files_") {
			continue
		}
		dir := filepath.Join(repacked, fmt.Sprint(i))
		dpkgDeb(t, "--raw-extract", file, dir)
		for _, options := range [][]string{
			{"-Zgzip"}, {"-Zgzip", "-z1", "-Srle"}, {"-Zxz"}, {"-Zxz", "-z9", "-Sextreme"}, {"-Zxz", "-z0"}, {"-Zzstd"}, {"-Zzstd", "-z19"}, {"-Znone"},
			{"-Zxz", "--no-uniform-compression"}, {"-Zzstd", "--no-uniform-compression"},
		} {
			again := filepath.Join(repacked, "again.deb")
			dpkgDeb(t, append(append([]string{"--root-owner-group"}, options...), "--build", dir, again)...)
			agreeWithDpkgDeb(t, again)
		}
	}
}

// agreeWithDpkgDeb holds what Read says of a file against dpkg-deb and
// sha256sum.
func agreeWithDpkgDeb(t *testing.T, file string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := deb.Read(bytes.NewReader(content), deb.Limits{})
	if err != nil {
		t.Errorf("%s: %v", filepath.Base(file), err)
		return
	}
	if p.SHA256 != sha256.Sum256(content) || p.Size != int64(len(content)) {
		t.Errorf("%s: size %d or SHA-256 %x is wrong", file, p.Size, p.SHA256)
	}
	if want := dpkgDeb(t, "--field", file); !bytes.Equal(p.Control.Bytes(), want) {
		t.Errorf("%s: the control file is %q, dpkg-deb says %q", file, p.Control.Bytes(), want)
	}
	want := dpkgDeb(t, "--showformat=${Package} ${Version} ${Architecture}", "--show", file)
	if got := p.Name + " " + p.Version + " " + p.Architecture; got != string(want) {
		t.Errorf("%s: it is %q, dpkg-deb says %q", file, got, want)
	}
}
