package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"aptfleet/test/device/bootcontrol"
)

// The program plays the vectors on real files. A grubenv that cannot be
// written is a directory entry on a read-only mount, which bootcontrol's own
// test covers with a disk in memory; those vectors are left to it.
func TestTheProgramFollowsTheVectorsOnFiles(t *testing.T) {
	f, err := os.Open("../testdata/loader-vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	vectors, err := bootcontrol.ReadVectors(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		if v.ReadOnly {
			continue
		}
		t.Run(v.Name, func(t *testing.T) {
			control, top := lay(t, v)
			var stdout, stderr bytes.Buffer
			code := run([]string{control, top}, &stdout, &stderr)
			if v.Boots == "nothing" {
				if code != 1 || stdout.Len() != 0 {
					t.Fatalf("exit %d, %q", code, &stdout)
				}
				return
			}
			if got := strings.TrimSuffix(stdout.String(), "\n"); code != 0 || got != "boot "+v.Boots {
				t.Fatalf("exit %d, %q, want boot %s\n%s", code, got, v.Boots, &stderr)
			}
			for name, want := range map[string][]byte{bootcontrol.TrialFile: v.Then, bootcontrol.CommittedFile: v.Committed} {
				got, err := os.ReadFile(filepath.Join(control, name))
				if (want == nil) != os.IsNotExist(err) || !bytes.Equal(got, want) {
					t.Errorf("%s is %q (%v), want %q", name, got, err, want)
				}
			}
		})
	}
}

func TestWrongUsageIsExitCode2(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(nil, &stdout, &stderr); code != 2 || !strings.Contains(stderr.String(), "usage:") {
		t.Fatalf("exit %d, %q", code, &stderr)
	}
}

// lay writes a vector's files below two temporary directories.
func lay(t *testing.T, v bootcontrol.Vector) (control, top string) {
	t.Helper()
	control, top = t.TempDir(), t.TempDir()
	write := func(path string, b []byte) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, b := range map[string][]byte{bootcontrol.TrialFile: v.Trial, bootcontrol.CommittedFile: v.Committed} {
		if b != nil {
			write(filepath.Join(control, name), b)
		}
	}
	for n, has := range v.Deployments {
		root := filepath.Join(top, "deployments", strconv.Itoa(n))
		write(filepath.Join(root, "etc/hostname"), []byte("device\n"))
		if has.Init {
			write(filepath.Join(root, "usr/lib/systemd/systemd"), []byte("init"))
		}
		if has.Release {
			write(filepath.Join(root, "usr/lib/os-release"), []byte("ID=debian\n"))
		}
	}
	return control, top
}
