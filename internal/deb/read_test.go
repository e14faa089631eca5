package deb_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/internal/deb"
)

const control = "Package: hello\nVersion: 1:2.0-1\nArchitecture: all\nMaintainer: A Tester <a@test.example>\nDepends: libc6 (>= 2.36), aa | bb\nDescription: says hello\n and no more\n .\n never\n"

// needs fails when a program is missing that make test installs.
func needs(t testing.TB, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%s is missing (hint: make test installs it)", program)
		}
	}
}

// tree makes the directory dpkg-deb builds from.
func tree(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string]string{
		"DEBIAN/control":  control,
		"DEBIAN/postinst": "#!/bin/sh\nexit 0\n",
		"usr/bin/hello":   strings.Repeat("hello\n", 10_000),
		"etc/hello.conf":  "greeting=hello\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func dpkgDeb(t testing.TB, args ...string) []byte {
	t.Helper()
	needs(t, "dpkg-deb")
	cmd := exec.Command("dpkg-deb", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("dpkg-deb %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}

func TestReadWhatDpkgDebWrites(t *testing.T) {
	dir := tree(t)
	for _, args := range [][]string{
		{"-Znone"}, {"-Zgzip"}, {"-Zgzip", "-z1"}, {"-Zxz"}, {"-Zxz", "-z9", "-Sextreme"}, {"-Zxz", "-z0"}, {"-Zzstd"}, {"-Zzstd", "-z22"}, {"-Zzstd", "-z1"},
		{"-Zxz", "--no-uniform-compression"}, {"-Zxz", "--threads-max=4"},
	} {
		t.Run(strings.Join(args, ""), func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "hello.deb")
			dpkgDeb(t, append(append([]string{"--root-owner-group"}, args...), "-b", dir, file)...)
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p, err := deb.Read(bytes.NewReader(data), deb.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if p.Name != "hello" || p.Version != "1:2.0-1" || p.Architecture != "all" {
				t.Errorf("read %s %s %s", p.Name, p.Version, p.Architecture)
			}
			if p.SHA256 != sha256.Sum256(data) || p.Size != int64(len(data)) {
				t.Error("hash or size is not the file's")
			}
			if want := dpkgDeb(t, "-f", file); string(p.Control.Bytes()) != string(want) {
				t.Errorf("control is\n%s\ndpkg-deb reads\n%s", p.Control.Bytes(), want)
			}
			index := string(deb.Index(p, "pool/aa/hello.deb"))
			if want := fmt.Sprintf("%sFilename: pool/aa/hello.deb\nSize: %d\nSHA256: %x\n", control, len(data), sha256.Sum256(data)); index != want {
				t.Errorf("index stanza is\n%s\nwant\n%s", index, want)
			}
		})
	}
}

func TestReadRefusesEveryTruncation(t *testing.T) {
	dir := tree(t)
	file := filepath.Join(t.TempDir(), "hello.deb")
	dpkgDeb(t, "--root-owner-group", "-Zxz", "-b", dir, file)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(data) {
		var format *deb.FormatError
		if _, err := deb.Read(bytes.NewReader(data[:n]), deb.Limits{}); !errors.As(err, &format) {
			t.Fatalf("cut after %d of %d bytes: %v, want a *FormatError", n, len(data), err)
		}
	}
}
