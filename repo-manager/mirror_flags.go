package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

// mirrorFlags say what a mirror takes from where.
type mirrorFlags struct {
	source sourceFlags

	packages   []string
	list       string
	filter     string
	filterDeps bool
	all        bool
	recommends bool
}

// sourceFlags say which suites a mirror follows.
type sourceFlags struct {
	url        string
	suites     []string
	components []string
	keyring    string
	lines      []string
}

func (f *mirrorFlags) define(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.source.url, "url", "", "base `URL` of the upstream archive, which holds dists/")
	flags.StringSliceVar(&f.source.suites, "suite", nil, "`suite` below dists/, e.g. trixie; may be repeated")
	flags.StringSliceVar(&f.source.components, "component", []string{"main"}, "upstream component; may be repeated")
	flags.StringVar(&f.source.keyring, "keyring", "", "`file` with the OpenPGP certificates that sign the upstream")
	flags.StringArrayVar(&f.source.lines, "source", nil, "a suite of any archive, as a `line` of sources.list; may be repeated")
	flags.StringSliceVar(&f.packages, "package", nil, "`name` of a wanted package; may be repeated")
	flags.StringVar(&f.list, "package-list", "", "`file` with wanted packages, one a line, # begins a comment")
	flags.StringVar(&f.filter, "filter", "", "package `query` in aptly's language; what it matches is wanted")
	flags.BoolVar(&f.filterDeps, "filter-with-deps", false, "take what the filter matches with its dependencies")
	flags.BoolVar(&f.all, "all", false, "take every package of the suites")
	flags.BoolVar(&f.recommends, "recommends", false, "follow Recommends like dependencies")
}

// apply changes of m what was said.
func (f *mirrorFlags) apply(cmd *cobra.Command, m *protocol.Mirror) error {
	changed := cmd.Flags().Changed
	if err := f.source.apply(cmd, m); err != nil {
		return err
	}
	if changed("package") || changed("package-list") {
		m.Packages, m.All = f.packages, false
		if f.list != "" {
			names, err := readNames(f.list)
			if err != nil {
				return err
			}
			m.Packages = append(m.Packages, names...)
		}
	}
	if changed("filter") {
		m.Filter, m.All = f.filter, m.All && f.filter == ""
		m.FilterDeps = m.FilterDeps && f.filter != ""
	}
	if changed("filter-with-deps") {
		m.FilterDeps = f.filterDeps
	}
	if changed("all") {
		m.All = f.all
		if f.all && !changed("package") && !changed("package-list") && !changed("filter") {
			m.Packages, m.Filter, m.FilterDeps = nil, "", false
		}
	}
	if changed("recommends") {
		m.Recommends = f.recommends
	}
	return nil
}

// given tells whether suites are named in full.
func (f *sourceFlags) given(cmd *cobra.Command) bool {
	return cmd.Flags().Changed("source") && !cmd.Flags().Changed("suite") && !cmd.Flags().Changed("url")
}

// apply replaces the suites of m if some are named; what is not said of them is
// as it was in the first one. Without names it changes what is said in all.
func (f *sourceFlags) apply(cmd *cobra.Command, m *protocol.Mirror) error {
	changed := cmd.Flags().Changed
	var keyring []byte
	if f.keyring != "" {
		var err error
		if keyring, err = os.ReadFile(f.keyring); err != nil {
			return fmt.Errorf("cannot read the keyring: %w", err)
		}
	}
	if !changed("suite") && !changed("source") {
		for _, s := range m.Suites {
			if changed("url") && s.URL != m.Suites[0].URL {
				return term.WithHint(term.Usagef("cannot set --url: the suites are of several archives"), "name all of them with --suite and --source")
			}
		}
		for i := range m.Suites {
			s := &m.Suites[i]
			if changed("url") {
				s.URL = f.url
			}
			if changed("component") {
				s.Components = f.components
			}
			s.Keyring = keyring
		}
		return nil
	}
	first := protocol.MirrorSuite{URL: f.url, Components: f.components}
	if len(m.Suites) > 0 {
		if !changed("url") {
			first.URL = m.Suites[0].URL
		}
		if !changed("component") {
			first.Components = m.Suites[0].Components
		}
	}
	m.Suites = nil
	for _, suite := range f.suites {
		m.Suites = append(m.Suites, protocol.MirrorSuite{URL: first.URL, Suite: suite, Components: first.Components, Keyring: keyring})
	}
	for _, line := range f.lines {
		suite, err := parseSource(line)
		if err != nil {
			return err
		}
		if suite.Keyring == nil {
			suite.Keyring = keyring
		}
		m.Suites = append(m.Suites, suite)
	}
	return nil
}

// parseSource reads a line of sources.list(5): "[option=value…] URL SUITE
// COMPONENT…", with or without the word deb before it.
func parseSource(line string) (protocol.MirrorSuite, error) {
	var s protocol.MirrorSuite
	wrong := func(cause string, args ...any) (protocol.MirrorSuite, error) {
		return s, term.WithHint(term.Usagef("cannot use source %q: %s", line, fmt.Sprintf(cause, args...)),
			"write it like: [signed-by=FILE priority=N] URL SUITE COMPONENT...")
	}
	rest := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "deb "))
	if options, isBracketed := strings.CutPrefix(rest, "["); isBracketed {
		options, after, closed := strings.Cut(options, "]")
		if !closed {
			return wrong("the bracket is not closed")
		}
		rest = after
		for _, option := range strings.Fields(options) {
			name, value, _ := strings.Cut(option, "=")
			var err error
			switch strings.ToLower(name) {
			case "signed-by":
				if s.Keyring, err = os.ReadFile(value); err != nil {
					return s, fmt.Errorf("cannot read the keyring: %w", err)
				}
			case "priority":
				if s.Priority, err = strconv.Atoi(value); err != nil {
					return wrong("%q is no priority", value)
				}
			default:
				return wrong("the option %s is not known", name)
			}
		}
	}
	words := strings.Fields(rest)
	if len(words) < 3 {
		return wrong("it needs a URL, a suite and a component")
	}
	s.URL, s.Suite, s.Components = words[0], words[1], words[2:]
	return s, nil
}

// readNames reads a list of names, one a line.
func readNames(path string) ([]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the list of packages: %w", err)
	}
	defer file.Close()
	var names []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		names = append(names, strings.Fields(line)...)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	return names, nil
}
