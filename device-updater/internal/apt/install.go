package apt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"aptfleet/device-updater/internal/sandbox"
	"aptfleet/internal/aptroot"
)

// Where things are inside the root while packages are installed.
const (
	insideConf     = "/run/aptfleet/apt.conf"
	insideSources  = "/run/aptfleet/sources.list.d"
	insideLists    = "/run/aptfleet/lists"
	insideDebs     = "/run/aptfleet/debs"
	insideLocal    = "/run/aptfleet/local"
	insideArchives = "/run/aptfleet/archives"
	insideLog      = "/run/aptfleet/log"
)

// Run runs a command in a sandbox: sandbox.Run, or what a test puts there.
type Run func(ctx context.Context, c sandbox.Command, out io.Writer) error

// Install turns root, which has the dpkg status that the plan was made for,
// into the plan's list with the apt and dpkg of that root. Configuration files
// that were changed locally stay. What apt and the packages' scripts print
// goes to out, with the lines in which apt tells its progress (APT::Status-Fd).
// After an error root is good for nothing.
func (p *Private) Install(ctx context.Context, run Run, root string, plan Plan, topLevel []string, out io.Writer) error {
	status, err := readStatus(root)
	if err != nil {
		return err
	}
	c := sandbox.Command{
		Root: root,
		Env:  []string{"APT_CONFIG=" + insideConf},
		// Not standard output itself: apt closes it for dpkg, whose first file,
		// the lock, would then be what it prints into.
		Status: true,
		Binds: []sandbox.Bind{
			{Source: p.Path("lists"), Target: insideLists},
			{Source: p.Path("archives"), Target: insideDebs},
		},
		Files: []sandbox.File{
			{Path: insideConf, Content: insideSettings, Mode: 0o644},
			{Path: insideSources + "/aptfleet.sources", Content: p.source.Deb822(p.source.Keyring), Mode: 0o644},
			{Path: insideArchives + "/partial/.keep", Mode: 0o644},
			{Path: insideLog + "/.keep", Mode: 0o644},
			{Path: "/run/aptfleet/extended_states", Mode: 0o644},
		},
	}
	plan = plan.inside(&c)
	for _, f := range plan.Fetch {
		// apt takes local files from its cache too, if it must not fetch.
		to := path.Join(insideDebs, f.File)
		if f.Local != "" {
			to = f.Local
		}
		c.Links = append(c.Links, sandbox.Link{Path: path.Join(insideArchives, f.File), To: to})
	}
	c.Argv = append([]string{"apt-get", "-q", "--no-download", "install"}, transaction...)
	c.Argv = append(c.Argv, plan.arguments()...)
	if err := run(ctx, c, out); err != nil {
		return fmt.Errorf("cannot install packages: %w", err)
	}
	if rebuilt := plan.reinstalls(status); len(rebuilt) > 0 {
		c.Argv = append([]string{"apt-get", "-q", "--no-download", "install", "--reinstall"}, transaction...)
		for _, r := range rebuilt {
			c.Argv = append(c.Argv, r.Argument())
		}
		if err := run(ctx, c, out); err != nil {
			return fmt.Errorf("cannot install packages again: %w", err)
		}
	}
	if err := wishNothingElse(ctx, run, root, out); err != nil {
		return err
	}
	return tidy(root, extendedStates(plan.List, topLevel, plan.Native))
}

// inside returns the plan with local packages at the path where the command
// sees them.
func (p Plan) inside(c *sandbox.Command) Plan {
	shown := make(map[string]string)
	show := func(list []Package) []Package {
		list = slices.Clone(list)
		for i, item := range list {
			if item.Local == "" {
				continue
			}
			at, ok := shown[item.Local]
			if !ok {
				at = path.Join(insideLocal, path.Base(item.Local))
				shown[item.Local] = at
				c.Binds = append(c.Binds, sandbox.Bind{Source: item.Local, Target: at})
			}
			list[i].Local = at
		}
		return list
	}
	p.List, p.Fetch = show(p.List), show(p.Fetch)
	return p
}

// wishNothingElse takes back what was wished for single packages, like a hold:
// the list alone says what is installed, in every root alike.
func wishNothingElse(ctx context.Context, run Run, root string, out io.Writer) error {
	status, err := readStatus(root)
	if err != nil {
		return err
	}
	var wishes strings.Builder
	for _, i := range status {
		if i.whole() && i.Status != wholeStatus {
			name := i.Name
			if i.Architecture != "all" {
				name += ":" + i.Architecture
			}
			fmt.Fprintf(&wishes, "%s install\n", name)
		}
	}
	if wishes.Len() == 0 {
		return nil
	}
	const file = "/run/aptfleet/selections"
	c := sandbox.Command{
		Root: root, Argv: []string{"sh", "-c", "dpkg --set-selections <" + file},
		Files: []sandbox.File{{Path: file, Content: wishes.String(), Mode: 0o644}},
	}
	if err := run(ctx, c, out); err != nil {
		return fmt.Errorf("cannot take back holds on packages: %w", err)
	}
	return nil
}

const insideSettings = aptroot.Settings + `Dir::Etc::sourceparts "` + insideSources + `";
Dir::State::lists "` + insideLists + `";
Dir::State::extended_states "/run/aptfleet/extended_states";
Dir::Cache::archives "` + insideArchives + `";
Dir::Log "` + insideLog + `";
Dpkg::Options { "--force-confdef"; "--force-confold"; "--force-unsafe-io"; "--log=/dev/null"; };
Dpkg::Use-Pty "false";
APT::Status-Fd "3";
`

// traces are files that say when and by which way packages were installed:
// without them a root depends on its packages alone. All can be rebuilt or are
// hidden by state that is mounted over them.
var traces = []string{
	"var/log/alternatives.log", "var/log/dpkg.log", "var/log/bootstrap.log", "var/log/apt/history.log", "var/log/apt/term.log", "var/log/apt/eipp.log.xz",
	"var/cache/apt/pkgcache.bin", "var/cache/apt/srcpkgcache.bin", "var/cache/ldconfig/aux-cache",
	"var/lib/dpkg/status-old", "var/lib/dpkg/available", "var/lib/dpkg/available-old", "var/lib/dpkg/diversions-old", "var/lib/dpkg/statoverride-old",
	"var/cache/debconf/config.dat-old", "var/cache/debconf/templates.dat-old", "etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-",
}

// tidy records what was installed automatically and removes the traces.
func tidy(root, extended string) error {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return fmt.Errorf("cannot open root %s: %w", root, err)
	}
	defer dir.Close()
	for _, trace := range traces {
		if err := dir.Remove(trace); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot tidy root %s: %w", root, err)
		}
	}
	if err := dir.WriteFile("var/lib/apt/extended_states", []byte(extended), 0o644); err != nil {
		return fmt.Errorf("cannot record automatic packages in %s: %w", root, err)
	}
	return nil
}

func readStatus(root string) ([]Installed, error) {
	f, err := os.Open(filepath.Join(root, "var/lib/dpkg/status"))
	if err != nil {
		return nil, fmt.Errorf("cannot read dpkg status: %w", err)
	}
	defer f.Close()
	return ParseStatus(f)
}

// Audit judges root after Install: every package is installed and whole, and
// together they are the list.
func Audit(ctx context.Context, run Run, root string, list []Package) error {
	installed, err := readStatus(root)
	if err != nil {
		return err
	}
	if wrong := Mismatch(list, installed); wrong != "" {
		return fmt.Errorf("cannot accept what was installed: %s", wrong)
	}
	var out bytes.Buffer
	if err := run(ctx, sandbox.Command{Root: root, Argv: []string{"dpkg", "--audit"}}, &out); err != nil {
		return fmt.Errorf("cannot audit what was installed: %w: %s", err, firstLine(out.String()))
	}
	if out.Len() > 0 {
		return fmt.Errorf("cannot accept what was installed: dpkg --audit says %q", firstLine(out.String()))
	}
	return nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
