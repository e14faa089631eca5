package build

import (
	"fmt"
	"strings"

	"aptfleet/builder/internal/manifest"
	"aptfleet/internal/debwriter"
)

// lint refuses what dpkg would accept and the device's owner regret.
func lint(c *collector) error {
	for _, e := range c.entries {
		if e.Mode.IsRegular() && !e.Conffile && strings.HasPrefix(e.Path, "/etc/") {
			return advise(fmt.Errorf("cannot build %s: %s:%d: %s is a plain file below /etc, so an upgrade would overwrite changes made on the device",
				c.m.Name, c.m.File, c.taken[e.Path].line, e.Path), "set type: config")
		}
	}
	return nil
}

// warnings are remarks on a package that is built all the same.
func warnings(m *manifest.Manifest, entries []debwriter.Entry) []string {
	var out []string
	if !strings.Contains(strings.TrimSpace(m.Description), "\n") {
		out = append(out, "description is one line: a longer text should follow its first line")
	}
	for _, e := range entries {
		for prefix, advice := range map[string]string{
			"/bin/":       "files belong below /usr/bin on a merged-/usr system",
			"/sbin/":      "files belong below /usr/sbin on a merged-/usr system",
			"/lib/":       "files belong below /usr/lib on a merged-/usr system",
			"/usr/local/": "/usr/local belongs to the administrator",
			"/run/":       "/run is empty after each boot: use tmpfiles.d",
			"/tmp/":       "/tmp is not for packages",
			"/home/":      "/home is not for packages",
		} {
			if strings.HasPrefix(e.Path, prefix) && !e.Mode.IsDir() {
				out = append(out, e.Path+": "+advice)
			}
		}
	}
	return out
}
