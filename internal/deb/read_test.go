package deb_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
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

// xzOf compresses with xz, without the sizes in its block header.
func xzOf(t testing.TB, data []byte, args ...string) []byte {
	t.Helper()
	return filter(t, data, append([]string{"xz", "--stdout", "--threads=1"}, args...)...)
}

func filter(t testing.TB, data []byte, args ...string) []byte {
	t.Helper()
	needs(t, args[0])
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return out
}

// TestInspectShowsEveryCompression unpacks the data member in each form that
// dpkg ever wrote, several blocks, checks and frames included.
func TestInspectShowsEveryCompression(t *testing.T) {
	content := strings.Repeat("0123456789abcdef\n", 20_000)
	plain := tarOf(t, file("./usr/share/x", content))
	ctl := member{name: "control.tar", data: tarOf(t, file("./control", control), file("./postinst", "#!/bin/sh\n"))}
	for name, data := range map[string][]byte{
		"data.tar":      plain,
		"data.tar.gz":   filter(t, plain, "gzip", "-9n"),
		"data.tar.bz2":  filter(t, plain, "bzip2"),
		"data.tar.lzma": xzOf(t, plain, "--format=lzma"),
		"data.tar.zst":  filter(t, plain, "zstd", "--stdout", "-q"),
		"data.tar.xz":   xzOf(t, plain),
		"data.tar.xz ":  xzOf(t, plain, "--check=none", "-0"),
		"data.tar.xz  ": xzOf(t, plain, "--check=crc32", "--block-size=20000"),
		"data.tar.xz/":  filter(t, plain, "xz", "--stdout", "--check=sha256", "--threads=2", "--block-size=60000"),
	} {
		whole := archive(version, ctl, member{name: name, data: data})
		var got []byte
		var scripts []string
		_, err := deb.Inspect(bytes.NewReader(whole), deb.Limits{}, deb.Visitor{
			Control: func(h *tar.Header, r io.Reader) error {
				text, err := io.ReadAll(r)
				scripts = append(scripts, h.Name+"="+string(text))
				return err
			},
			Data: func(h *tar.Header, r io.Reader) (err error) {
				if h.Name != "/usr/share/x" {
					t.Errorf("%s: the entry is named %q", name, h.Name)
				}
				got, err = io.ReadAll(r)
				return err
			},
		})
		if err != nil || string(got) != content {
			t.Errorf("%s: %v, %d bytes of %d", name, err, len(got), len(content))
		}
		if len(scripts) != 2 || scripts[0] != "control="+control || scripts[1] != "postinst=#!/bin/sh\n" {
			t.Errorf("%s: control files are %q", name, scripts)
		}
		// A flipped bit in compressed data is found, or does no harm.
		for at := 20; at < len(data); at += max(1, len(data)/12) {
			bad := bytes.Clone(data)
			bad[at] ^= 0x10
			got = nil
			_, err := deb.Inspect(bytes.NewReader(archive(version, ctl, member{name: name, data: bad})), deb.Limits{}, deb.Visitor{Data: func(h *tar.Header, r io.Reader) (err error) {
				got, err = io.ReadAll(r)
				return err
			}})
			var format *deb.FormatError
			if err != nil && !errors.As(err, &format) {
				t.Errorf("%s, bit %d flipped: %v is no *FormatError", name, at, err)
			}
		}
	}
	stop := errors.New("enough")
	_, err := deb.Inspect(bytes.NewReader(archive(version, ctl, member{name: "data.tar", data: plain})), deb.Limits{}, deb.Visitor{Data: func(*tar.Header, io.Reader) error { return stop }})
	if !errors.Is(err, stop) {
		t.Errorf("a visitor's error came back as %v", err)
	}
}
