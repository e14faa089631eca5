package build

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"aptfleet/builder/internal/manifest"
	"aptfleet/internal/debwriter"
)

// snippets are lines of shell for the maintainer scripts, by script.
type snippets map[string]string

// unit is a systemd unit of the package.
type unit struct {
	name      string
	installed bool // it has an [Install] section, so it can be enabled
	policy    manifest.UnitPolicy
}

var (
	unitDirectories = []string{"/usr/lib/systemd/system", "/lib/systemd/system"}
	unitName        = regexp.MustCompile(`^[A-Za-z0-9:_.\\@-]+\.(service|socket|timer|path|target|mount|automount|swap|slice)$`)
	installSection  = regexp.MustCompile(`(?i)^\s*\[Install\]\s*$`)
)

// maxUnit bounds what is read of a unit file, in bytes.
const maxUnit = 1 << 20

// findUnits returns the package's own units, sorted by name. Templates are
// left out: nobody can start them without an instance. So are links, which
// are other names of a unit.
func findUnits(m *manifest.Manifest, entries []debwriter.Entry) ([]unit, error) {
	found := map[string]unit{}
	for _, e := range entries {
		name := path.Base(e.Path)
		if !slices.Contains(unitDirectories, path.Dir(e.Path)) || !e.Mode.IsRegular() || !unitName.MatchString(name) || strings.Contains(name, "@") {
			continue
		}
		if _, exists := found[name]; exists {
			return nil, fmt.Errorf("cannot use unit %s: it is in both %s and %s", name, unitDirectories[0], unitDirectories[1])
		}
		installed, err := hasInstallSection(e)
		if err != nil {
			return nil, fmt.Errorf("cannot read unit %s: %w", name, err)
		}
		found[name] = unit{name, installed, m.Systemd.Policy(name)}
	}
	for name := range m.Systemd.Units {
		if _, exists := found[name]; !exists {
			return nil, fmt.Errorf("cannot use aptfleet.systemd.units.%s of %s: the package has no such unit", name, m.File)
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b unit) int { return strings.Compare(a.name, b.name) }), nil
}

func hasInstallSection(e debwriter.Entry) (found bool, err error) {
	content, err := e.Open()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	text, err := io.ReadAll(io.LimitReader(content, maxUnit))
	if err != nil {
		return false, err
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxUnit+1)
	for lines.Scan() {
		if installSection.Match(lines.Bytes()) {
			return true, nil
		}
	}
	return false, lines.Err()
}

// serviceSnippets writes what a package's units need at installation, upgrade
// and removal: the actions that dh_installsystemd, dh_installsysusers and
// dh_installtmpfiles of debhelper 13 arrange, in the same order. Nothing is
// started where systemd does not run, and an administrator's "systemctl
// disable" outlives upgrades, which is what deb-systemd-helper is for.
func serviceSnippets(units []unit, entries []debwriter.Entry) snippets {
	var configure, removed, purged strings.Builder
	if files := configured(entries, "sysusers.d"); files != "" {
		// Not guarded: without its users a service cannot work.
		fmt.Fprintf(&configure, "\tsystemd-sysusers ${DPKG_ROOT:+--root=\"$DPKG_ROOT\"} %s\n", files)
	}
	if files := configured(entries, "tmpfiles.d"); files != "" {
		fmt.Fprintf(&configure, "\tif command -v systemd-tmpfiles >/dev/null; then\n\t\tsystemd-tmpfiles ${DPKG_ROOT:+--root=\"$DPKG_ROOT\"} --create %s >/dev/null || true\n\tfi\n", files)
	}
	var installed []string
	for _, u := range units {
		if u.installed {
			installed = append(installed, quote(u.name))
			configure.WriteString(enable(u))
		}
	}
	configure.WriteString(start(units))
	if len(units) > 0 {
		removed.WriteString("\tif [ -d /run/systemd/system ]; then\n\t\tsystemctl --system daemon-reload >/dev/null || true\n\tfi\n")
	}
	if len(installed) > 0 {
		fmt.Fprintf(&purged, "\tif command -v deb-systemd-helper >/dev/null; then\n\t\tdeb-systemd-helper purge %s >/dev/null || true\n\tfi\n", strings.Join(installed, " "))
	}
	out := snippets{}
	if configure.Len() > 0 {
		out["postinst"] = inCase("configure | abort-upgrade | abort-deconfigure | abort-remove", configure.String())
	}
	if stopped := names(units, func(u unit) bool { return u.policy.Start }); stopped != "" {
		out["prerm"] = inCase("remove", whileRunning("deb-systemd-invoke stop "+stopped+" >/dev/null || true\n"))
	}
	if removed.Len() > 0 {
		out["postrm"] = inCase("remove", removed.String())
	}
	if purged.Len() > 0 {
		out["postrm"] += inCase("purge", purged.String())
	}
	return out
}

// configured lists the package's files for one of systemd's helpers.
func configured(entries []debwriter.Entry, directory string) string {
	var files []string
	for _, e := range entries {
		if path.Dir(e.Path) == "/usr/lib/"+directory && path.Ext(e.Path) == ".conf" {
			files = append(files, quote(path.Base(e.Path)))
		}
	}
	slices.Sort(files)
	return strings.Join(files, " ")
}

// enable lets deb-systemd-helper decide: it remembers what the package
// enabled and what the administrator has disabled since.
func enable(u unit) string {
	name := quote(u.name)
	if !u.policy.Enable {
		return strings.ReplaceAll(`	if deb-systemd-helper debian-installed NAME; then
		deb-systemd-helper unmask NAME >/dev/null || true
		if deb-systemd-helper --quiet was-enabled NAME; then
			deb-systemd-helper enable NAME >/dev/null || true
		fi
	fi
	deb-systemd-helper update-state NAME >/dev/null || true
`, "NAME", name)
	}
	return strings.ReplaceAll(`	deb-systemd-helper unmask NAME >/dev/null || true
	if deb-systemd-helper --quiet was-enabled NAME; then
		deb-systemd-helper enable NAME >/dev/null || true
	else
		deb-systemd-helper update-state NAME >/dev/null || true
	fi
`, "NAME", name)
}

// start starts units at the first installation and restarts them at upgrades,
// as far as each unit's policy goes.
func start(units []unit) string {
	both := names(units, func(u unit) bool { return u.policy.Start && u.policy.Restart })
	onlyStart := names(units, func(u unit) bool { return u.policy.Start && !u.policy.Restart })
	onlyRestart := names(units, func(u unit) bool { return !u.policy.Start && u.policy.Restart })
	if both+onlyStart+onlyRestart == "" {
		return ""
	}
	body := "systemctl --system daemon-reload >/dev/null || true\n"
	if onlyStart != "" {
		body += "deb-systemd-invoke start " + onlyStart + " >/dev/null || true\n"
	}
	if both != "" {
		body += "if [ -n \"$2\" ]; then\n\tdeb-systemd-invoke restart " + both + " >/dev/null || true\nelse\n\tdeb-systemd-invoke start " + both + " >/dev/null || true\nfi\n"
	}
	if onlyRestart != "" {
		body += "if [ -n \"$2\" ]; then\n\tdeb-systemd-invoke try-restart " + onlyRestart + " >/dev/null || true\nfi\n"
	}
	return whileRunning(body)
}

func names(units []unit, wanted func(unit) bool) string {
	var out []string
	for _, u := range units {
		if wanted(u) {
			out = append(out, quote(u.name))
		}
	}
	return strings.Join(out, " ")
}

// whileRunning guards lines by systemd being the running init of the root
// that dpkg works on.
func whileRunning(lines string) string {
	return "\tif [ -z \"${DPKG_ROOT:-}\" ] && [ -d /run/systemd/system ]; then\n" + indent(lines, "\t\t") + "\tfi\n"
}

// inCase runs lines for some of the script's first arguments.
func inCase(pattern, lines string) string {
	return "case \"$1\" in\n" + pattern + ")\n" + lines + "\t;;\nesac\n"
}

func indent(lines, with string) string {
	return with + strings.ReplaceAll(strings.TrimSuffix(lines, "\n"), "\n", "\n"+with) + "\n"
}

// quote puts a word into single quotes for the shell.
func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }
