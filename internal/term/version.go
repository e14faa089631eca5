package term

import (
	"runtime/debug"
	"strings"
)

// VersionTemplate is how every program answers --version: its name and its
// version on one line (a template of cobra).
const VersionTemplate = "{{.Name}} {{.Version}}\n"

// Version is what the Go tool recorded about this build: a module version,
// "devel" for a tree that has none, "unknown" if nothing was recorded.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return strings.Trim(info.Main.Version, "()")
}
