package main

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// most is what the program may have, in bytes: it is in every deployment of
// every device. Much of what is linked for little was text/template once.
const most = 13_500_000

// TestTheProgramIsStaticAndSmall also runs what it builds, where it is for
// another architecture with QEMU's emulation of a process.
func TestTheProgramIsStaticAndSmall(t *testing.T) {
	for architecture, emulator := range map[string]string{"amd64": "qemu-x86_64", "arm64": "qemu-aarch64"} {
		t.Run(architecture, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "device-updater")
			build := exec.Command("go", "build", "-tags", "nomsgpack", "-trimpath", "-ldflags", "-s -w", "-o", path, ".")
			build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+architecture)
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d bytes", info.Size())
			if info.Size() > most {
				t.Errorf("it has %d bytes, more than %d", info.Size(), most)
			}
			static(t, path)
			command := []string{path}
			if architecture != runtime.GOARCH {
				command = []string{emulator, path}
			}
			works(t, command)
		})
	}
}

// static checks that a program needs no other file.
func static(t *testing.T, path string) {
	t.Helper()
	program, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("it needs a dynamic linker")
		}
	}
}

// works lets the program read a journal and a configuration, and write its
// manual.
func works(t *testing.T, command []string) {
	t.Helper()
	sysroot, flags := deviceFlags(t)
	line := `{"seq":1,"at":"2026-11-20T12:00:00Z","tx":1,"phase":"FAILED","state":"abc","deployment":2,"from":1,"reason":"it was not healthy"}` + "\n"
	if err := os.WriteFile(filepath.Join(sysroot, "updater/journal"), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--version"}, "device-updater "},
		{append([]string{"history", "--json"}, flags...), "it was not healthy"},
		{append([]string{"config", "list"}, flags...), ""},
		{[]string{"man", t.TempDir()}, ""},
	} {
		args := append(slices.Clone(command), c.args...)
		out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), c.says) {
			t.Errorf("%v: %v\n%s", c.args, err, out)
		}
	}
}
