package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"aptfleet/internal/protocol"
)

// What flags make of a mirror: what is not said stays.
func TestMirrorFlags(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	keyring, other := file("keyring", "k"), file("other", "o")
	list := file("list", "# wanted\nnginx apt # both\n\n")
	debian := func(suite string) protocol.MirrorSuite {
		return protocol.MirrorSuite{URL: "https://a.example/debian", Suite: suite, Components: []string{"main"}}
	}
	keyed := func(s protocol.MirrorSuite, key string) protocol.MirrorSuite {
		s.Keyring = []byte(key)
		return s
	}
	before := protocol.Mirror{Suites: []protocol.MirrorSuite{debian("trixie")}, Packages: []string{"hello"}}
	security := protocol.MirrorSuite{URL: "https://s.example/security", Suite: "trixie-security", Components: []string{"main", "contrib"}, Priority: -1}
	for _, c := range []struct {
		name   string
		before protocol.Mirror
		args   []string
		want   protocol.Mirror
		err    string
	}{
		{name: "nothing", before: before, want: before},
		{name: "create", args: []string{"--url", "https://a.example/debian", "--suite", "trixie,trixie-updates", "--keyring", keyring, "--package", "hello"},
			want: protocol.Mirror{Suites: []protocol.MirrorSuite{keyed(debian("trixie"), "k"), keyed(debian("trixie-updates"), "k")}, Packages: []string{"hello"}}},
		{name: "create from sources", args: []string{"--source", "deb [signed-by=" + other + " priority=-1] https://s.example/security trixie-security main contrib",
			"--source", "https://a.example/debian trixie main", "--keyring", keyring, "--package-list", list, "--package", "hello"},
			want: protocol.Mirror{Suites: []protocol.MirrorSuite{keyed(security, "o"), keyed(debian("trixie"), "k")}, Packages: []string{"hello", "nginx", "apt"}}},
		{name: "more suites", before: before, args: []string{"--suite", "trixie", "--suite", "trixie-updates", "--source", "[Priority=-1]https://s.example/security   trixie-security main contrib"},
			want: protocol.Mirror{Suites: []protocol.MirrorSuite{debian("trixie"), debian("trixie-updates"), security}, Packages: []string{"hello"}}},
		{name: "another mirror of it", before: before, args: []string{"--url", "https://b.example/debian"},
			want: protocol.Mirror{Suites: []protocol.MirrorSuite{{URL: "https://b.example/debian", Suite: "trixie", Components: []string{"main"}}}, Packages: []string{"hello"}}},
		{name: "another mirror of several", before: protocol.Mirror{Suites: []protocol.MirrorSuite{debian("trixie"), security}}, args: []string{"--url", "https://b.example/debian"},
			err: "the suites are of several archives"},
		{name: "another keyring", before: protocol.Mirror{Suites: []protocol.MirrorSuite{debian("trixie"), security}, All: true}, args: []string{"--keyring", other},
			want: protocol.Mirror{Suites: []protocol.MirrorSuite{keyed(debian("trixie"), "o"), keyed(security, "o")}, All: true}},
		{name: "everything", before: protocol.Mirror{Suites: before.Suites, Packages: []string{"a"}, Filter: "b", FilterDeps: true}, args: []string{"--all"},
			want: protocol.Mirror{Suites: before.Suites, All: true}},
		{name: "no more everything", before: protocol.Mirror{Suites: before.Suites, All: true}, args: []string{"--filter", "Section (net)", "--filter-with-deps", "--recommends"},
			want: protocol.Mirror{Suites: before.Suites, Filter: "Section (net)", FilterDeps: true, Recommends: true}},
		{name: "both at once is for the server to refuse", before: before, args: []string{"--all", "--package", "a"},
			want: protocol.Mirror{Suites: before.Suites, All: true, Packages: []string{"a"}}},
		{name: "no more filter", before: protocol.Mirror{Suites: before.Suites, Packages: []string{"a"}, Filter: "b", FilterDeps: true}, args: []string{"--filter", ""},
			want: protocol.Mirror{Suites: before.Suites, Packages: []string{"a"}}},
		{name: "no keyring", before: before, args: []string{"--keyring", dir + "/none"}, err: "cannot read the keyring"},
		{name: "a source without component", before: before, args: []string{"--source", "https://a.example/debian trixie"}, err: "it needs a URL, a suite and a component"},
		{name: "a source with an open bracket", before: before, args: []string{"--source", "[priority=1 https://a.example/debian trixie main"}, err: "the bracket is not closed"},
		{name: "a source with a wrong priority", before: before, args: []string{"--source", "[priority=high] https://a.example/debian trixie main"}, err: `"high" is no priority`},
		{name: "a source of one architecture", before: before, args: []string{"--source", "[arch=amd64] https://a.example/debian trixie main"}, err: "the option arch is not known"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var flags mirrorFlags
			got := c.before
			got.Suites = append([]protocol.MirrorSuite(nil), got.Suites...)
			cmd := &cobra.Command{RunE: func(cmd *cobra.Command, _ []string) error { return flags.apply(cmd, &got) }, SilenceErrors: true, SilenceUsage: true}
			flags.define(cmd)
			cmd.SetArgs(c.args)
			err := cmd.Execute()
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}
