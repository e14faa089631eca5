package settings

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"aptfleet/internal/protocol"
)

// awkward are texts that quoting goes wrong with.
var awkward = []string{
	"", " ", "a b", "'", `"`, `\`, `\\`, `\n`, "$HOME", "$(id)", "`id`", "!x", "#x", "; x", "a=b", "\n", "a\n#b\nC=d\n", "\t x \t", "x\\", "x\\\n", "x\\\ny",
	"%n", "*", "~", "é", "😀", "'\\''", "{{ x }}", "-----BEGIN KEY-----\nMIIB\n-----END KEY-----\n",
}

// allowed are texts that a value can be.
func allowed() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.SampledFrom(awkward),
		rapid.StringOf(rapid.RuneFrom([]rune("ab \t\n'\"\\$`!#;=&|<>(){}[]*?~%é"))),
		rapid.String(),
	).Filter(func(s string) bool { return protocol.CheckConfigText(s) == nil })
}

// TestEnvironmentFile: sh and systemd read what was meant, whatever it is.
func TestEnvironmentFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.env")
	systemd := systemdReader(t, file)
	compare := func(values map[string]any) error {
		if err := os.WriteFile(file, []byte(environment(rev("a"), values)), 0o600); err != nil {
			return err
		}
		want := []string{"APTFLEET_CONFIG_REVISION=" + rev("a")}
		for _, key := range slices.Sorted(maps.Keys(values)) {
			want = append(want, protocol.ConfigVariable(key)+"="+Text(values[key]))
		}
		for name, read := range map[string]func() ([]string, error){"sh": shReader(file), "systemd": systemd} {
			got, err := read()
			slices.Sort(got)
			slices.Sort(want)
			if err != nil || !slices.Equal(got, want) {
				return fmt.Errorf("%s reads %q, %v, want %q", name, got, err, want)
			}
		}
		return nil
	}
	all := map[string]any{"n": 1e21, "b": true, "a.b-c": 0.5}
	for i, text := range awkward {
		all[fmt.Sprintf("k%d", i)] = text
	}
	if err := compare(all); err != nil {
		t.Error(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		values := make(map[string]any)
		for i, text := range rapid.SliceOfN(allowed(), 1, 20).Draw(rt, "values") {
			values[fmt.Sprintf("k%d", i)] = text
		}
		if err := compare(values); err != nil {
			rt.Fatal(err)
		}
	})
}

// TestTheJudgesBite: what is not quoted, or cannot be a value, is found out.
func TestTheJudgesBite(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.env")
	systemd := systemdReader(t, file)
	for text, want := range map[string]string{
		"A=\"$HOME\"\n":         "systemd [A=$HOME] sh [A=" + os.Getenv("HOME") + "]",
		"A=\"\\$HOME\"\n":       "systemd [A=$HOME] sh [A=$HOME]",
		"A=\"x\ufdd0y\"\nB=1\n": "systemd [error -22] sh [A=x\ufdd0y B=1]", // it takes nothing of the file then
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		bySystemd, err := systemd()
		bySh, errSh := shReader(file)()
		slices.Sort(bySh)
		if got := fmt.Sprint("systemd ", bySystemd, " sh ", bySh); got != want || err != nil || errSh != nil {
			t.Errorf("%q: %s, %v, %v; want %s", text, got, err, errSh, want)
		}
	}
}

// shReader reads a file as sh does, with an empty environment.
func shReader(file string) func() ([]string, error) {
	return func() ([]string, error) {
		out, err := exec.Command("env", "-i", "HOME="+os.Getenv("HOME"), "/bin/sh", "-c", `set -a; . "$0"; unset HOME PWD OLDPWD _; exec /usr/bin/env -0`, file).Output()
		return words(out), err
	}
}

// systemdReader reads a file with systemd's own parser, and drops what systemd
// would not give to a service. The parser is in a library that systemd's
// programs share; Python calls it.
func systemdReader(t *testing.T, file string) func() ([]string, error) {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/*/systemd/libsystemd-shared-*.so")
	if older, errOlder := filepath.Glob("/usr/lib/systemd/libsystemd-shared-*.so"); err == nil && errOlder == nil {
		found = append(found, older...)
	}
	if len(found) == 0 {
		t.Fatal("libsystemd-shared is missing: make test installs systemd-container, which brings it")
	}
	const program = `
import ctypes, sys
systemd, libc = ctypes.CDLL(sys.argv[1]), ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
for line in sys.stdin:
    file = libc.fopen(sys.argv[2].encode(), b"r")
    found = ctypes.POINTER(ctypes.c_char_p)()
    status = systemd.load_env_file(ctypes.c_void_p(file), None, ctypes.byref(found))
    libc.fclose(ctypes.c_void_p(file))
    words, i = [], 0
    while found and found[i]:
        if systemd.env_assignment_is_valid(found[i]):
            words.append(found[i])
        i += 1
    text = b"".join(w + b"\0" for w in words) if status == 0 else b"error %d\0" % status
    sys.stdout.buffer.write(b"%d\n" % len(text) + text)
    sys.stdout.flush()
`
	cmd := exec.Command("python3", "-c", program, found[0], file)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: make test installs python3", err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, &complaints)
		}
	})
	return func() ([]string, error) {
		if _, err := in.Write([]byte("\n")); err != nil {
			return nil, err
		}
		var size int
		if _, err := fmt.Fscanf(out, "%d\n", &size); err != nil {
			return nil, fmt.Errorf("%w: %s", err, &complaints)
		}
		raw := make([]byte, size)
		for n := 0; n < size; {
			m, err := out.Read(raw[n:])
			if err != nil {
				return nil, err
			}
			n += m
		}
		return words(raw), nil
	}
}

// words are what a zero byte ends.
func words(raw []byte) []string {
	if len(raw) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(raw), "\x00"), "\x00")
}
