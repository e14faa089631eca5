package mirror

import (
	"strings"
	"testing"
)

func TestWishes(t *testing.T) {
	for _, c := range []struct {
		name       string
		packages   []string
		filter     string
		deps       bool
		all        bool
		recommends bool
		want       string // packages, or
		err        string
	}{
		{name: "a filter takes what it matches and nothing else", filter: "Priority (required) | hello (>= 2)", want: "base-files hello mawk"},
		{name: "with dependencies, and what every device has", filter: "Name (hello-data) | hello", deps: true, want: "apt base-files hello hello-data libc mawk"},
		{name: "with recommended ones", filter: "hello", deps: true, recommends: true, want: "apt base-files gawk hello hello-data libc mawk"},
		{name: "names bring dependencies, a filter beside them not", packages: []string{"mawk"}, filter: "hello", want: "apt base-files hello libc mawk"},
		{name: "not", filter: "!Name (~ '^(hello|lib)')", want: "apt base-files broken gawk mawk unrelated"},
		{name: "provided", filter: "awk", want: "gawk mawk"},
		{name: "architecture all", filter: "Architecture (all)", want: "hello-data"},
		{name: "no match", filter: "Section (net)", err: "nothing in it was asked for"},
		{name: "a missing dependency names what the filter matched", filter: "broken", deps: true, err: "needed by broken 1 (matches the filter)"},
		{name: "which is no matter without dependencies", filter: "broken", want: "broken"},
		{name: "everything", all: true, want: "apt base-files broken gawk hello hello-data libc mawk unrelated"},
		{name: "no query", filter: "Name (", err: "cannot use the filter"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := newArchive(t)
			a.debs["amd64"] = base + "\nPackage: broken\nVersion: 1\nArchitecture: amd64\nDepends: gone\n"
			a.publish()
			r := newRig(t, a)
			config := a.config(c.packages...)
			config.Filter, config.FilterDeps, config.All, config.Recommends = c.filter, c.deps, c.all, c.recommends
			err := r.update(t.Context(), config, &fakeProgress{})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || r.engine.replaced != 0 {
					t.Fatalf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := r.names(); got != c.want {
				t.Errorf("the mirror has %q, want %q", got, c.want)
			}
		})
	}
}
