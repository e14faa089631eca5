package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"aptfleet/internal/deb"
)

func TestGeneratedPackagesAreThoseOfARelease(t *testing.T) {
	names := drawNames(5000)
	known, initials, libs := make(map[string]bool), make(map[byte]int), 0
	for _, name := range names {
		if err := deb.ValidPackageName(name); err != nil {
			t.Fatal(err)
		}
		if known[name] {
			t.Fatalf("%s is drawn twice", name)
		}
		known[name] = true
		initials[name[0]]++
		if strings.HasPrefix(name, "lib") {
			libs++
		}
	}
	for c := byte('a'); c <= 'z'; c++ {
		if initials[c] == 0 && c != 'u' && c != 'o' { // rare among words that begin with a vowel
			t.Errorf("no name begins with %c", c)
		}
	}
	if libs < 1000 || libs > 2500 {
		t.Errorf("%d of 5000 names begin with lib, want about a third", libs)
	}
	total := 0
	for i := range names {
		stanza, err := drawStanza(names, i)
		if err != nil {
			t.Fatal(err)
		}
		total += len(stanza.Bytes())
	}
	// An index adds 200 to 450 bytes of hashes and file name.
	if average := total / len(names); average < 450 || average > 650 {
		t.Errorf("a stanza has %d bytes on average", average)
	}
}

func TestPackagesAreWrittenOnceAndAlwaysTheSame(t *testing.T) {
	ctx := context.Background()
	first, err := generated(ctx, 30, xzMembers, t.TempDir(), 2)
	if err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	second, err := generated(ctx, 30, xzMembers, cache, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range first.files {
		if !bytes.Equal(read(t, filepath.Join(first.dir, name)), read(t, filepath.Join(second.dir, name))) {
			t.Errorf("%s has other bytes the second time", name)
		}
	}
	before, err := os.Stat(second.dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := generated(ctx, 30, xzMembers, cache, 1); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(second.dir); err != nil || !os.SameFile(before, after) {
		t.Errorf("packages that were there were made again (%v)", err)
	}
	if left, err := filepath.Glob(filepath.Join(cache, ".partial-*")); err != nil || len(left) > 0 {
		t.Errorf("%v is left behind (%v)", left, err)
	}
	if err := os.Remove(filepath.Join(second.dir, second.files[0])); err != nil {
		t.Fatal(err)
	}
	if _, err := generated(ctx, 30, xzMembers, cache, 1); err == nil {
		t.Error("a directory that lacks a package was used")
	}
}

func TestPackagesAreRealPackages(t *testing.T) {
	for _, as := range []members{xzMembers, gzMembers} {
		c, err := generated(t.Context(), 10, as, t.TempDir(), 1)
		if err != nil {
			t.Fatal(err)
		}
		scratch := t.TempDir()
		for i := range c.count {
			newer, err := c.newer(t.Context(), scratch, i, i+1)
			if err != nil {
				t.Fatal(err)
			}
			old, err := c.stanza(i)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("dpkg", "--compare-versions", newer.version, "gt", old.Get("Version")).CombinedOutput(); err != nil {
				t.Errorf("%s is not higher than %s: %v %s", newer.version, old.Get("Version"), err, out)
			}
			file := read(t, newer.path)
			content, err := deb.Read(bytes.NewReader(file), deb.Limits{})
			if err != nil || content.Name != newer.name || content.Version != newer.version || !bytes.Contains(file, []byte("\ncontrol.tar."+as+" ")) {
				t.Errorf("%s holds %s %s (%v)", newer.path, content.Name, content.Version, err)
			}
			if out, err := exec.Command("dpkg-deb", "--contents", newer.path).CombinedOutput(); err != nil || !bytes.Contains(out, []byte("./usr/share/"+newer.name+"\n")) {
				t.Errorf("dpkg-deb says %v\n%s", err, out)
			}
		}
	}
}

func TestStanzasOfAnIndexBecomeControlStanzas(t *testing.T) {
	var packed, text bytes.Buffer
	z := gzip.NewWriter(&packed)
	for _, version := range []string{"1", "2"} { // of each name the first
		for _, name := range []string{"one", "two"} {
			fmt.Fprintf(z, "Package: %s\nVersion: %s\nArchitecture: all\nFilename: pool/%s\nSize: 5\nMD5sum: x\nSHA256: y\nDescription: says %s\n\n", name, version, name, name)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	offsets, err := copyStanzas(&text, packed.Bytes())
	if err != nil || len(offsets) != 3 {
		t.Fatalf("offsets %v, %v; want those of two stanzas", offsets, err)
	}
	want := "Package: two\nVersion: 1\nArchitecture: all\nDescription: says two\n"
	if got := text.String()[offsets[1]:offsets[2]]; got != want {
		t.Errorf("the second stanza is\n%s\nwant\n%s", got, want)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
