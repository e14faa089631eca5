package snapshots

import (
	"context"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// shelf are packages that tell queries apart.
func shelf(t testing.TB) []Package {
	t.Helper()
	return []Package{
		needing(t, "nginx=1.2:amd64", "Section: httpd", "Priority: optional", "Provides: httpd, nginx-abi (= 1.2)", "Depends: libc6 (>= 2.36),", " libssl3 | libssl1.1", "Installed-Size: 900"),
		needing(t, "nginx=1.10:arm64", "Section: httpd", "Priority: optional", "Provides: httpd", "Installed-Size: 1000"),
		needing(t, "apache2=2.4:amd64", "Section: httpd", "Priority: extra", "Provides: httpd", "Source: apache (2.4-1)"),
		needing(t, "lib01=1:amd64", "Section: non-free/libs", "Multi-Arch: same", "Source: lib"),
		needing(t, "lib1=1:amd64", "Section: libs", "Homepage: https://lib.example/ (old)"),
		needing(t, "lib-data=1.0~rc1:all", "Section: libs", "Source: lib (1)"),
	}
}

func TestQuery(t *testing.T) {
	all := "nginx=1.2:amd64 nginx=1.10:arm64 apache2=2.4:amd64 lib01=1:amd64 lib1=1:amd64 lib-data=1.0~rc1:all"
	rows := map[string]string{
		"nginx":                            "nginx=1.2:amd64 nginx=1.10:arm64",
		"  nginx\t":                        "nginx=1.2:amd64 nginx=1.10:arm64",
		"nginx (>= 1.10)":                  "nginx=1.10:arm64",
		"nginx (> 1.2)":                    "nginx=1.2:amd64 nginx=1.10:arm64",
		"nginx (>> 1.2)":                   "nginx=1.10:arm64",
		"nginx (< 1.2)":                    "nginx=1.2:amd64",
		"nginx (<< 1.2)":                   "",
		"nginx(1.2)":                       "nginx=1.2:amd64",
		"nginx (=1.2)":                     "nginx=1.2:amd64",
		"nginx (% 1.1*)":                   "nginx=1.10:arm64",
		"nginx (~ ^1\\..$)":                "nginx=1.2:amd64",
		"nginx {arm64}":                    "nginx=1.10:arm64",
		"nginx (>= 1) {amd64}":             "nginx=1.2:amd64",
		"lib-data {arm64}":                 "lib-data=1.0~rc1:all",
		"nginx_1.2_amd64":                  "nginx=1.2:amd64",
		"lib-data_1.0~rc1_all":             "lib-data=1.0~rc1:all",
		"nginx_1.2_arm64":                  "",
		"httpd":                            "nginx=1.2:amd64 nginx=1.10:arm64 apache2=2.4:amd64",
		"httpd (>= 1)":                     "",
		"nginx-abi (>= 1)":                 "nginx=1.2:amd64",
		"nginx-abi (>> 2)":                 "",
		"libssl3":                          "",
		"Name (lib1)":                      "lib1=1:amd64",
		"Name (% lib*)":                    "lib01=1:amd64 lib1=1:amd64 lib-data=1.0~rc1:all",
		"Name (% lib1)":                    "lib1=1:amd64",
		"Name (% *1)":                      "lib01=1:amd64 lib1=1:amd64",
		"Package (~ ^lib[01]+$)":           "lib01=1:amd64 lib1=1:amd64",
		"Version (<< 1.0), Name (% lib-*)": "lib-data=1.0~rc1:all",
		"$Version (>= 1.10)":               "nginx=1.10:arm64 apache2=2.4:amd64",
		"$Architecture (amd64)":            "nginx=1.2:amd64 apache2=2.4:amd64 lib01=1:amd64 lib1=1:amd64 lib-data=1.0~rc1:all",
		"$Architecture (source)":           "",
		"$Architecture (~ ^a[lr])":         "nginx=1.10:arm64 lib-data=1.0~rc1:all",
		"Architecture (amd64)":             "nginx=1.2:amd64 apache2=2.4:amd64 lib01=1:amd64 lib1=1:amd64",
		"$Source (lib)":                    "lib01=1:amd64 lib-data=1.0~rc1:all",
		"$Source (nginx)":                  "nginx=1.2:amd64 nginx=1.10:arm64",
		"$SourceVersion (2.4-1)":           "apache2=2.4:amd64",
		"$SourceVersion (1)":               "lib01=1:amd64 lib1=1:amd64 lib-data=1.0~rc1:all",
		"$PackageType (deb)":               all,
		"$PackageType (source)":            "",
		"Multi-Arch":                       "lib01=1:amd64",
		"!Section":                         "",
		"Section (libs)":                   "lib1=1:amd64 lib-data=1.0~rc1:all",
		"Section (% *libs)":                "lib1=1:amd64 lib-data=1.0~rc1:all", // a star does not take a slash, as in aptly
		"Section (% */libs)":               "lib01=1:amd64",
		"Installed-Size (>= 1000)":         "nginx=1.10:arm64",
		"Depends (% 'libc6 (*')":           "nginx=1.2:amd64",
		"Depends (~ ', libssl3 \\\\| libssl1.1$')":         "nginx=1.2:amd64",
		`Homepage (= "https://lib.example/ (old)")`:        "lib1=1:amd64",
		"nginx, !$Architecture (arm64)":                    "nginx=1.2:amd64",
		"nginx | lib1, Section (libs)":                     "nginx=1.2:amd64 nginx=1.10:arm64 lib1=1:amd64",
		"(nginx | lib1), Section (libs)":                   "lib1=1:amd64",
		"!nginx, !apache2":                                 "lib01=1:amd64 lib1=1:amd64 lib-data=1.0~rc1:all",
		"!(nginx | apache2)":                               "lib01=1:amd64 lib1=1:amd64 lib-data=1.0~rc1:all",
		"!!nginx":                                          "nginx=1.2:amd64 nginx=1.10:arm64",
		"'nginx' ('1.2')":                                  "nginx=1.2:amd64",
		"Priority (extra) | Name (= lib1) | lib01_1_amd64": "apache2=2.4:amd64 lib01=1:amd64 lib1=1:amd64",
	}
	for text, want := range rows {
		q, err := ParseQuery(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var got []string
		for _, p := range shelf(t) {
			if q.Takes(p) {
				got = append(got, p.Ref().String())
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s takes %q, want %q", text, strings.Join(got, " "), want)
		}
		if q.String() != text {
			t.Errorf("%s became %s", text, q)
		}
	}
	if p := pkg(t, "tool", "1", "amd64"); !(Query{}).Takes(p) {
		t.Error("the zero query does not take everything")
	}
}

func TestParseQueryRefuses(t *testing.T) {
	rows := map[string]string{
		"":                              "it ends where a package or a field is expected",
		"nginx,":                        "it ends where a package or a field is expected",
		"nginx | , lib1":                `at byte 9: "," stands where a package or a field is expected`,
		"nginx lib1":                    `at byte 7: "lib1" stands where the end`,
		"(nginx":                        "it ends where ) is expected",
		"nginx)":                        `at byte 6: ")" stands where the end`,
		"nginx (":                       "it ends where a value is expected",
		"nginx (>= )":                   `at byte 11: ")" stands where a value is expected`,
		"nginx (>= 1":                   "it ends where ) is expected",
		"nginx (>= 1 2)":                `at byte 13: "2" stands where ) is expected`,
		"nginx (>= _)":                  "cannot parse version",
		"nginx {amd64":                  "it ends where } is expected",
		"nginx {any}":                   "cannot use architecture",
		"nginx {":                       "it ends where an architecture is expected",
		"'nginx":                        "at byte 1: the quoted word has no end",
		"nginx (= '1.2)":                "at byte 10: the quoted word has no end",
		`nginx (= "1\`:                  "the quoted word has no end",
		"nginx {'a":                     "the quoted word has no end",
		"nginx 'x":                      "the quoted word has no end",
		"lib*":                          "for patterns there is Name (% lib*)",
		"nginx:amd64":                   "for architectures name {amd64}",
		"Nginx_1.2_amd64":               "is no name_version_architecture",
		"nginx_1.2":                     "is no name_version_architecture",
		"section (libs)":                "a field begins with a capital letter",
		"$Colour (red)":                 "there is no $Colour; there are $Architecture",
		"Name (% [)":                    "is no pattern",
		"Name (~ [)":                    "missing closing ]",
		"Name (~ a{1000}{1000})":        "where ) is expected",
		"Name {amd64}":                  `at byte 6: "{" stands where the end`,
		"\xff":                          "not UTF-8",
		strings.Repeat("(", MaxQuery+1): "65537 bytes",
		strings.Repeat("(", MaxQuery):   "it ends where",
		strings.Repeat("!", MaxQuery):   "it ends where",
	}
	for text, want := range rows {
		_, err := ParseQuery(text)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "cannot read query: ") {
			t.Errorf("%.40q: error is %v, want one about %q", text, err, want)
		}
	}
}

// A query may close a chunk only if it takes nothing from it.
func TestNamesOfAQuery(t *testing.T) {
	rows := map[string]bool{ // whether the names are limited
		"Name (= lib1)": true, "Name (lib1)": true, "Name (% lib*)": true, "Name (% lib1)": true, "lib1_1_amd64": true,
		"Name (lib1) | nginx_1.2_amd64": true, "nginx, Name (= nginx)": true, "Section (libs), Name (% lib*)": true,
		"lib1": false, "Name (% *1)": false, "Name (~ ^lib)": false, "Name (>= lib)": false, "!Name (lib1)": false,
		"Name (lib1) | nginx": false, "Section (libs)": false, "Name": false,
	}
	for text, want := range rows {
		q := must[Query](t)(ParseQuery(text))
		if _, limited := q.names(); limited != want {
			t.Errorf("%s: limited is %v", text, limited)
		}
	}
	if _, limited := (Query{}).names(); limited {
		t.Error("the zero query is limited")
	}
}

func FuzzParseQuery(f *testing.F) {
	for _, text := range []string{
		"nginx", "nginx (>= 1.2) {amd64}, !Name (% lib*) | lib1_1_amd64", `Homepage (= "a (b)")`, `'it\'s'`, "((a1))", "!!a1", "$Source (~ a+)", "Name (% [a-z]*)", "nginx (", "'", "<<", "\\",
	} {
		f.Add(text)
	}
	packages := shelf(f)
	f.Fuzz(func(t *testing.T, text string) {
		q, err := ParseQuery(text)
		if err != nil {
			return
		}
		spans, limited := q.names()
		for _, p := range packages {
			inside := slices.ContainsFunc(spans, func(s span) bool { return s.from <= p.Name && p.Name < s.to })
			if q.Takes(p) && limited && !inside {
				t.Fatalf("%q takes %s, which lies outside of its names %q", text, p.Ref(), spans)
			}
		}
	})
}

// genQuery draws queries over the names and versions of genPackage.
func genQuery(rt *rapid.T) string {
	name := func() string {
		return rapid.SampledFrom(slices.Concat(borderNames, plainNames, []string{"run"})).Draw(rt, "name")
	}
	var gen func(depth int) string
	gen = func(depth int) string {
		kinds := 5
		if depth > 0 {
			kinds = 8
		}
		switch rapid.IntRange(0, kinds-1).Draw(rt, "kind") {
		case 0:
			return name()
		case 1:
			return "Name (" + name() + ")"
		case 2:
			return "Name (% " + name()[:rapid.IntRange(1, 3).Draw(rt, "n")] + "*)"
		case 3:
			return name() + "_" + rapid.SampledFrom([]string{"1", "1:0", "2~rc1"}).Draw(rt, "version") + "_" + rapid.SampledFrom([]string{"all", "amd64"}).Draw(rt, "arch")
		case 4:
			return "$Version (" + rapid.SampledFrom([]string{"=", "<<", ">=", "%", "~"}).Draw(rt, "op") + " 1)"
		case 5:
			return "!" + gen(0)
		case 6:
			return "(" + gen(depth-1) + ", " + gen(depth-1) + ")"
		}
		return "(" + gen(depth-1) + " | " + gen(depth-1) + ")"
	}
	return gen(3)
}

// Filter keeps what the query takes and nothing else, in the one form that
// this content has; Select yields the same, whatever stays closed.
func TestFilter(t *testing.T) {
	ctx, store := context.Background(), &Memory{}
	base := filler(t, store)
	known := refsOf(t, store, base)
	rapid.Check(t, func(rt *rapid.T) {
		s := must[State](t)(Apply(ctx, store, base, genEdits(rt, known)...))
		q := must[Query](t)(ParseQuery(genQuery(rt)))
		filtered, err := Filter(ctx, store, s, q)
		if err != nil {
			rt.Fatal(err)
		}
		if !slices.Equal(filtered.Keys(), s.Keys()) {
			rt.Fatalf("the indices are %v", filtered.Keys())
		}
		for _, key := range s.Keys() {
			var want []string
			for p, err := range All(ctx, store, s, key) {
				if err != nil {
					rt.Fatal(err)
				}
				if q.Takes(p) {
					want = append(want, p.Ref().String())
				}
			}
			if got := content(t, store, filtered, key); !slices.Equal(got, want) {
				rt.Fatalf("%s: %s has %q, want %q", q, key, got, want)
			}
		}
		if again := rebuilt(t, store, filtered); again.ID() != filtered.ID() {
			rt.Fatalf("it is cut\n%s\nbuilt at once\n%s", filtered.Text(), again.Text())
		}
	})
}

// A query for names opens the chunks in which they can lie, and no others.
func selectOpensWhatItsNamesAllow(t *testing.T, store *counting, s State) {
	ctx := context.Background()
	for text, want := range map[string][2]int{ // packages, and chunks at most
		"Name (package01234)":                            {1, 2},
		"package01234_1.0-1_amd64 | Name (package15000)": {2, 4},
		"Name (% package0123*), $Version (1.0-1)":        {10, 2},
		"Name (zzz) | Name (aaa)":                        {0, 2},
		"package01234":                                   {1, len(s.Index(amd64).Chunks)},
	} {
		store.reset()
		found := 0
		for _, err := range Select(ctx, store, s, amd64, must[Query](t)(ParseQuery(text))) {
			if err != nil {
				t.Fatal(err)
			}
			found++
		}
		if found != want[0] || len(store.gets) > want[1] {
			t.Errorf("%s found %d packages in %d chunks, want %d in at most %d", text, found, len(store.gets), want[0], want[1])
		}
	}
}
