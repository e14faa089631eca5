package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/device-updater/internal/apttest"
	"aptfleet/internal/term"
	"aptfleet/test/debian"
)

func TestRefusePackages(t *testing.T) {
	sysroot, flags := deviceFlags(t)
	args := append(flags, "refuse-packages")
	if code, _, errOut := call(t, args...); code != 0 || errOut != "" {
		t.Errorf("without deployments: %d, %s", code, errOut)
	}
	if err := os.Mkdir(filepath.Join(sysroot, "deployments"), 0o755); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := call(t, args...)
	if code != term.ExitRefused || out != "" || !strings.Contains(errOut, "device-updater try") || !strings.Contains(errOut, anyway) {
		t.Errorf("%d, %s%s", code, out, errOut)
	}
	t.Setenv(anyway, "1")
	if code, _, errOut := call(t, args...); code != 0 || errOut != "" {
		t.Errorf("nevertheless: %d, %s", code, errOut)
	}
}

// TestAptOnTheLiveRoot asks the apt and the dpkg of each Debian: what changes
// packages is refused with advice, everything else goes on working.
func TestAptOnTheLiveRoot(t *testing.T) {
	program := filepath.Join(t.TempDir(), "device-updater")
	build := exec.Command("go", "build", "-tags", "nomsgpack", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, suite := range []string{"trixie", "bookworm"} {
		t.Run(suite, func(t *testing.T) { aptOnTheLiveRoot(t, suite, program) })
	}
}

func aptOnTheLiveRoot(t *testing.T, suite, program string) {
	tar, err := debian.Root(t.Context(), debian.Spec{Suite: suite})
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := debian.Unpack(t.Context(), tar, root); err != nil {
		t.Fatal(err)
	}
	archive := apttest.New(t)
	archive.Publish("demo/dev", nil, []apttest.Package{{Name: "tool", Version: "2"}, {Name: "other", Version: "1"}})
	install := func(path, content string, mode os.FileMode) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(root+path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root+path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{
		program: "/usr/bin/device-updater", "package/apt.conf": "/etc/apt/apt.conf.d/00aptfleet", "package/dpkg.cfg": "/etc/dpkg/dpkg.cfg.d/aptfleet",
		archive.Deb(apttest.Package{Name: "tool", Version: "1"}): "/tool.deb", archive.Keyring: "/keyring.asc",
	} {
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		install(to, string(content), 0o755)
	}
	sources, err := filepath.Glob(filepath.Join(root, "etc/apt/sources.list*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range sources {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	install("/etc/apt/sources.list", "deb [signed-by=/keyring.asc] "+archive.URL+"/demo/dev trixie main\n", 0o644)
	inside := func(argv ...string) (string, error) {
		var out bytes.Buffer
		cmd := exec.CommandContext(t.Context(), "chroot", append([]string{root, "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}, argv...)...)
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		return out.String(), err
	}
	works := func(argv ...string) {
		t.Helper()
		if out, err := inside(argv...); err != nil || strings.Contains(out, "device-updater") {
			t.Errorf("%v: %v\n%s", argv, err, out)
		}
	}
	installed := func() string {
		out, _ := inside("dpkg-query", "-W", "-f", "${Version} ${db:Status-Status}", "tool") // fails where there is none
		return out
	}
	refused := func(argv ...string) {
		t.Helper()
		before := installed()
		out, err := inside(argv...)
		if err == nil || strings.Count(out, "cannot change packages here") != 1 || !strings.Contains(out, "device-updater try FILE.deb") {
			t.Errorf("%v: %v\n%s", argv, err, out)
		}
		if after := installed(); after != before {
			t.Errorf("%v: tool was %s and is %s", argv, before, after)
		}
	}

	// In the factory, and in the root that an update is made in, nothing is refused.
	works("dpkg", "-i", "/tool.deb")
	if err := os.MkdirAll(filepath.Join(root, "sysroot/deployments"), 0o755); err != nil {
		t.Fatal(err)
	}
	works("apt-get", "update")
	works("apt-get", "-s", "dist-upgrade")
	works("apt-get", "--download-only", "-y", "install", "other")
	works("apt-get", "download", "other")
	works("apt-cache", "policy", "tool")
	works("dpkg", "-l")
	works("dpkg", "--audit")
	works("dpkg", "--verify", "tool")
	works("apt-mark", "hold", "tool")
	works("apt-mark", "unhold", "tool")
	refused("apt-get", "-y", "install", "tool")
	refused("apt-get", "-y", "dist-upgrade")
	refused("apt-get", "-y", "remove", "tool")
	refused("apt", "-y", "install", "other")
	refused("apt-get", "-y", "install", "/tool.deb", "--allow-downgrades", "--reinstall")
	refused("dpkg", "-i", "/tool.deb")
	refused("dpkg", "--purge", "tool")
	refused("dpkg", "--configure", "-a")
	works("env", anyway+"=1", "apt-get", "-y", "install", "tool")
	if got := installed(); got != "2 installed" {
		t.Errorf("nevertheless: %s", got)
	}
	works("env", anyway+"=1", "dpkg", "-i", "/tool.deb")
	// Without the updater nobody is in the way.
	if err := os.Remove(filepath.Join(root, "usr/bin/device-updater")); err != nil {
		t.Fatal(err)
	}
	works("dpkg", "--purge", "tool")
}
