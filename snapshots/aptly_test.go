package snapshots_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"aptfleet/internal/deb"
	"aptfleet/internal/debwriter"
	"aptfleet/snapshots"
)

// collection is what aptly and we are asked about.
var collection = []string{
	"Package: nginx\nVersion: 1.2-1\nArchitecture: amd64\nSection: httpd\nPriority: optional\nProvides: httpd, www-server\nDepends: libc6 (>= 2.36),  libssl3 | libssl1.1\nInstalled-Size: 900\n",
	"Package: nginx\nVersion: 1.10-1\nArchitecture: arm64\nSection: httpd\nPriority: optional\nProvides: httpd\nInstalled-Size: 1000\n",
	"Package: apache2\nVersion: 2.4~rc1-1\nArchitecture: amd64\nSection: httpd\nPriority: extra\nProvides: httpd\nSource: apache (2.4-1)\n",
	"Package: libfoo\nVersion: 1:0.9+git1-2\nArchitecture: amd64\nSection: non-free/libs\nMulti-Arch: same\nSource: foo\nHomepage: https://foo.example/\n",
	"Package: libfoo-data\nVersion: 1:0.9+git1-2\nArchitecture: all\nSection: libs\nSource: foo\nRecommends: nginx | apache2\n",
	"Package: hello\nVersion: 2.10\nArchitecture: all\nSection: misc\nPriority: optional\nDepends: libfoo (= 1:0.9+git1-2)\n",
}

// aptly runs aptly on a root of its own.
func aptly(t testing.TB, dir string, args ...string) string {
	t.Helper()
	out, err := exec.Command("aptly", append([]string{"-config=" + filepath.Join(dir, "aptly.conf")}, args...)...).CombinedOutput()
	// A search without a result is an error to aptly.
	if err != nil && !strings.Contains(string(out), "no results") {
		t.Fatalf("aptly %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// Queries find what aptly finds with them, over every field and operator.
func TestQueriesAsAptlyReadsThem(t *testing.T) {
	if _, err := exec.LookPath("aptly"); err != nil {
		t.Fatal("aptly is missing: make test installs it")
	}
	ctx, dir := context.Background(), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "aptly.conf"), fmt.Appendf(nil, `{"rootDir": %q}`, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	store := &snapshots.Memory{}
	keys := []snapshots.Key{{Component: "apps", Architecture: "amd64"}, {Component: "apps", Architecture: "arm64"}}
	state, err := snapshots.New(ctx, store, keys)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range collection {
		control, err := deb.ParseStanza([]byte(text + "Maintainer: Tests <tests@example.org>\nDescription: made for a test\n"))
		if err != nil {
			t.Fatal(err)
		}
		name := deb.FileName(control.Get("Package"), control.Get("Version"), control.Get("Architecture"))
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := debwriter.Write(file, debwriter.Spec{Control: control, ModTime: time.Unix(0, 0), TempDir: dir}); err != nil {
			t.Fatal(err)
		}
		if _, err := file.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
		read, err := deb.Read(file, deb.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		p, err := snapshots.ParsePackage(deb.Index(read, "pool/"+name))
		if err != nil {
			t.Fatal(err)
		}
		if state, err = snapshots.Apply(ctx, store, state, snapshots.Edit{Component: "apps", Put: []snapshots.Package{p}}); err != nil {
			t.Fatal(err)
		}
	}
	aptly(t, dir, "repo", "create", "apps")
	aptly(t, dir, "repo", "add", "apps", dir)

	values := map[string][]string{
		"Name": {"nginx", "lib*", "^lib", "n"}, "Version": {"1.2-1", "1.10-1", "1*", `^1\.`, "1:0"}, "$Version": {"1.2-1", "1.10-1", "2.4-1", "1*", `\+git`},
		"Section": {"httpd", "libs", "*/libs", "*libs", "libs$", "''"}, "Priority": {"optional", "e*", "tra$"}, "Installed-Size": {"900", "1000", "99", "9*"},
		"$Architecture": {"amd64", "all", "a*", "64$"}, "Architecture": {"amd64", "all", "a*", "64$"}, "$Source": {"foo", "apache", "nginx", "f*", "o$"},
		"$SourceVersion": {"2.4-1", "1.2-1", "2.4~rc1-1", "2*", `\+`}, "$PackageType": {"deb", "d*", "e"}, "Source": {"foo", "'apache (2.4-1)'", "f*", `\(`},
		"Depends": {"'libc6 (*'", "'libfoo (= 1:0.9+git1-2)'", `', libssl3 \\|'`}, "Provides": {"httpd", "'httpd, www-server'", "server$"}, "Multi-Arch": {"same"},
		"Homepage": {"https://foo.example/", "'https:*'", "foo"}, "Recommends": {"'nginx \\| apache2'", "'nginx | apache2'"}, "Absent": {"1", "*", "^$"},
	}
	fields := make([]string, 0, len(values))
	for name := range values {
		fields = append(fields, name)
	}
	slices.Sort(fields)
	draw := func(rt *rapid.T, what string, from ...string) string { return rapid.SampledFrom(from).Draw(rt, what) }
	var gen func(rt *rapid.T, depth int) string
	gen = func(rt *rapid.T, depth int) string {
		switch n := rapid.IntRange(0, 6+2*depth).Draw(rt, "kind"); {
		case n < 4:
			name := draw(rt, "field", fields...)
			if n == 0 {
				return name
			}
			op := draw(rt, "op", "", "=", "<<", "<", "<=", ">>", ">", ">=", "%", "~")
			value := draw(rt, "value", values[name]...)
			if name == "Depends" || name == "Homepage" || name == "Recommends" || name == "Provides" {
				op = draw(rt, "no version", "", "=", "%", "~") // ordered as versions they make no sense to either
			}
			if _, err := regexp.Compile(strings.Trim(value, "'")); op == "~" && err != nil {
				return name
			}
			return name + " (" + op + " " + value + ")"
		case n < 5:
			return draw(rt, "name", "nginx", "httpd", "libfoo", "hello", "www-server", "absent") +
				draw(rt, "architecture", "", "", " {amd64}", " {arm64}", " {i386}")
		case n < 6:
			return draw(rt, "name", "nginx", "libfoo", "hello") +
				draw(rt, "version", " (1.2-1)", " (>= 1.2-1)", " (<< 1.10-1)", " (> 1:0)", " (% 1*)", ` (~ \.1)`) + draw(rt, "architecture", "", " {amd64}")
		case n < 7:
			return draw(rt, "package", "nginx_1.2-1_amd64", "libfoo-data_1:0.9+git1-2_all", "hello_2.10_amd64")
		case n < 8:
			return "!" + gen(rt, depth-1)
		case n < 9:
			return "(" + gen(rt, depth-1) + ")"
		}
		return gen(rt, depth-1) + draw(rt, "and or", ", ", " | ") + gen(rt, depth-1)
	}
	queries := rapid.Custom(func(rt *rapid.T) string { return gen(rt, rapid.IntRange(0, 3).Draw(rt, "depth")) })
	found := 0
	for seed := range 150 { // aptly takes a while, so there are few of them, and always the same
		text := queries.Example(seed)
		q, err := snapshots.ParseQuery(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var got []string
		for _, key := range keys {
			for p, err := range snapshots.Select(ctx, store, state, key, q) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, p.Name+"_"+p.Version+"_"+p.Architecture)
			}
		}
		slices.Sort(got)
		got = slices.Compact(got)
		var want []string
		for line := range strings.Lines(aptly(t, dir, "package", "search", text)) {
			if line = strings.TrimSpace(line); strings.Count(line, "_") == 2 {
				want = append(want, line)
			}
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s finds %q, with aptly %q", text, got, want)
		}
		if len(got) > 0 && len(got) < len(collection) {
			found++
		}
	}
	if found < 50 {
		t.Errorf("only %d queries found some of the packages", found)
	}
}
