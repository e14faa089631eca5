package build

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"aptfleet/builder/internal/manifest"
)

// maxScript bounds a maintainer script, in bytes.
const maxScript = 1 << 20

// placeholder marks where a script wants the generated lines, as in
// debhelper's scripts.
const placeholder = "#DEBHELPER#"

// maintainerScripts reads the manifest's scripts and joins the generated
// lines to them.
func maintainerScripts(m *manifest.Manifest, dir string, generated snippets) (map[string][]byte, error) {
	scripts := map[string][]byte{}
	for _, name := range []string{"preinst", "postinst", "prerm", "postrm", "config"} {
		file, lines := m.Scripts[name], generated[name]
		if file == "" {
			if lines != "" {
				scripts[name] = []byte("#!/bin/sh\nset -e\n" + lines)
			}
			continue
		}
		text, err := readScript(dir, file)
		if err == nil {
			text, err = joinScript(text, lines)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot use the %s script %s: %w", name, file, err)
		}
		scripts[name] = text
	}
	return scripts, nil
}

func readScript(dir, file string) ([]byte, error) {
	if !filepath.IsAbs(file) {
		file = filepath.Join(dir, file)
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxScript {
		return nil, fmt.Errorf("it has more than %d bytes", maxScript)
	}
	return os.ReadFile(file)
}

// joinScript returns the user's script with the generated lines in the place
// of its placeholder, else behind it. Behind it, the user's lines run in a
// subshell: their "exit 0" ends them and not the script, and their variables
// and options stay their own. The colon is for a script of comments alone.
func joinScript(text []byte, generated string) ([]byte, error) {
	first, rest, _ := bytes.Cut(text, []byte("\n"))
	if !bytes.HasPrefix(first, []byte("#!")) {
		return nil, errors.New("its first line must be #!/bin/sh or another interpreter")
	}
	if bytes.ContainsRune(first, '\r') {
		return nil, errors.New("its lines end in carriage returns")
	}
	if bytes.Contains(text, []byte(placeholder)) {
		return bytes.ReplaceAll(text, []byte(placeholder), []byte(strings.TrimSuffix(generated, "\n"))), nil
	}
	if generated == "" {
		return text, nil
	}
	if !isShell(string(first[2:])) {
		return nil, advise(errors.New("systemd units need lines in it, which can be joined to a shell script only"),
			"write it for /bin/sh, or manage the units in it and set enable, start and restart of aptfleet.systemd to false")
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s\n(\n:\n%s\n)\nstatus=$?\n[ \"$status\" -eq 0 ] || exit \"$status\"\nset -e\n%s", first, bytes.TrimRight(rest, "\n"), generated)
	return out.Bytes(), nil
}

// isShell reports whether an interpreter line names a POSIX shell.
func isShell(interpreter string) bool {
	words := strings.Fields(interpreter)
	if len(words) > 1 && filepath.Base(words[0]) == "env" {
		words = words[1:]
	}
	if len(words) == 0 {
		return false
	}
	switch filepath.Base(words[0]) {
	case "sh", "dash", "bash":
		return true
	}
	return false
}
