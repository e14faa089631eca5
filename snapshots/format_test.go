package snapshots

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// exampleState makes the state of the worked example in the format document.
func exampleState(t testing.TB, store Chunks) State {
	t.Helper()
	ctx := context.Background()
	puts := make([]Package, 2)
	for i, stanza := range []string{
		"Package: hello\nVersion: 2.10-3\nArchitecture: amd64\nMaintainer: Example <maintainer@example.org>\nDescription: a greeting\nFilename: pool/2c/2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824/hello_2.10-3_amd64.deb\nSize: 5\nSHA256: 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\n",
		"Package: world\nVersion: 1:1.0\nArchitecture: all\nMaintainer: Example <maintainer@example.org>\nDescription: whom to greet\nFilename: pool/48/486ea46224d1bb4fb680f34f7c9ad96a8f24ec88be73ea8e5a6c65260e9cb8a7/world_1.0_all.deb\nSize: 5\nSHA256: 486ea46224d1bb4fb680f34f7c9ad96a8f24ec88be73ea8e5a6c65260e9cb8a7\n",
	} {
		p, err := ParsePackage([]byte(stanza))
		if err != nil {
			t.Fatal(err)
		}
		puts[i] = p
	}
	s := must[State](t)(New(ctx, store, []Key{{"apps", "amd64"}, {"apps", "arm64"}, {"debian", "amd64"}}))
	return must[State](t)(Apply(ctx, store, s, Edit{Component: "apps", Put: puts}))
}

// The bytes in docs/snapshot-format.md are those that this package writes, and
// sha256sum finds in them the ids that the document names.
func TestTheDocumentedExample(t *testing.T) {
	document, err := os.ReadFile("../docs/snapshot-format.md")
	if err != nil {
		t.Fatal(err)
	}
	store := &Memory{}
	s := exampleState(t, store)
	texts := map[string][]byte{"state": s.Text()}
	for _, key := range s.Keys() {
		for i, ref := range s.Index(key).Chunks {
			texts[fmt.Sprintf("chunk-%s-%d", key.Architecture, i+1)] = must[[]byte](t)(store.Get(context.Background(), ref.ID))
		}
	}
	blocks := make(map[string][]byte)
	for _, match := range regexp.MustCompile("(?s)```text ([a-z0-9-]+)\n(.*?)```").FindAllSubmatch(document, -1) {
		blocks[string(match[1])] = match[2]
	}
	if len(blocks) != len(texts) {
		t.Errorf("the document shows %d texts, the state has %d", len(blocks), len(texts))
	}
	dir := t.TempDir()
	for name, text := range texts {
		if !bytes.Equal(blocks[name], text) {
			t.Errorf("the document shows as %s:\n%s\nit is:\n%s", name, blocks[name], text)
			continue
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, blocks[name], 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("sha256sum", path).Output()
		if err != nil {
			t.Fatalf("sha256sum: %v", err)
		}
		sum, _, _ := strings.Cut(string(out), " ")
		if !bytes.Contains(document, []byte(sum+"  "+name)) {
			t.Errorf("the document does not say that %s has the SHA-256 %s", name, sum)
		}
		if name != "state" && !strings.Contains(string(s.Text()), "\n"+sum+" ") {
			t.Errorf("the state does not list %s", name)
		}
		if name == "state" && sum != s.ID().String() {
			t.Errorf("the state's id is %s, its SHA-256 %s", s.ID(), sum)
		}
	}
	for _, parameter := range []int{averageChunk, longRun, maxChunkCount, maxChunkBytes, MaxStanza} {
		if !strings.Contains(strings.ReplaceAll(string(document), ",", ""), fmt.Sprint(parameter)) {
			t.Errorf("the document does not name the parameter %d", parameter)
		}
	}
	for name, border := range map[string]string{borderNames[0]: "a border", plainNames[0]: "no border"} {
		if !strings.Contains(string(document), fmt.Sprintf("`%s` is %s", name, border)) {
			t.Errorf("the document does not say that `%s` is %s", name, border)
		}
	}
}

// Decode accepts what this package writes, and nothing else.
func TestDecodeRefuses(t *testing.T) {
	id := strings.Repeat("ab", 32)
	good := header + "Index: apps amd64 2\n" + id + " 1 100 aa 1 amd64\n" + id + " 1 100 bb 1 all\nIndex: base amd64 0\n"
	if s, err := Decode([]byte(good)); err != nil || s.Count() != 2 || len(s.Keys()) != 2 || s.Index(Key{"apps", "amd64"}).Size() != 200 {
		t.Fatalf("the good text is refused: %v", err)
	}
	rows := []struct{ name, from, to, want string }{
		{"another version", "Aptfleet-State: 1", "Aptfleet-State: 2", "format version"},
		{"other parameters", "name/512", "name/256", "format version"},
		{"nothing", good, "", "format version"},
		{"no last newline", "base amd64 0\n", "base amd64 0", "no end"},
		{"an empty line", "Index: base", "\nIndex: base", "line 6 is wrong"},
		{"a further word", "base amd64 0\n", "base amd64 0 x\n", "want Index:"},
		{"a tab", "base amd64", "base\tamd64", "want Index:"},
		{"a key twice", "Index: base", "Index: apps", "follows"},
		{"keys out of order", "Index: base", "Index: aaaa", "follows"},
		{"too few chunks", "amd64 2\n", "amd64 3\n", "want <sha256>"},
		{"chunks at the end missing", "base amd64 0\n", "base amd64 1\n", "lacks 1 chunks"},
		{"a huge number of chunks", "base amd64 0\n", "base amd64 9223372036854775807\n", "lacks"},
		{"a negative number of chunks", "base amd64 0\n", "base amd64 -1\n", "plain decimal"},
		{"a number with a zero before it", "base amd64 0\n", "base amd64 00\n", "plain decimal"},
		{"upper-case digits", "\nab", "\nAB", "cannot parse id"},
		{"a chunk without packages", " 1 100 aa", " 0 100 aa", "1 to 2048 packages"},
		{"a chunk of too many packages", " 1 100 aa", " 2049 100 aa", "1 to 2048 packages"},
		{"a chunk of no bytes", " 1 100 aa", " 1 0 aa", "1 to 9437185 bytes"},
		{"a chunk of too many bytes", " 1 100 aa", " 1 9437186 aa", "1 to 9437185 bytes"},
		{"chunks out of order", "100 bb", "100 a0", "follows"},
		{"a name and version twice", "100 bb", "100 aa", "follows"},
		{"a name that is none", "100 bb", "100 B", "package name"},
		{"a version that is none", "bb 1 all", "bb _ all", "version"},
		{"an architecture that is none", "bb 1 all", "bb 1 any", "architecture"},
		{"an index for all", "base amd64", "base all", "real architecture"},
		{"a component that is none", "Index: base", "Index: -", "component name"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			text := strings.Replace(good, row.from, row.to, 1)
			if text == good {
				t.Fatal("the row changes nothing")
			}
			if _, err := Decode([]byte(text)); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error is %v, want one about %q", err, row.want)
			}
		})
	}
}

func TestDecodeChunkRefuses(t *testing.T) {
	a, b := string(stanzaOf("aa", "1", "amd64", "")), string(stanzaOf("bb", "1", "all", ""))
	good := a + "\n" + b + "\n"
	if packages, err := decodeChunk([]byte(good)); err != nil || len(packages) != 2 {
		t.Fatalf("the good chunk is refused: %v", err)
	}
	many := func(n int) string {
		var text strings.Builder
		for i := range n {
			text.Write(stanzaOf(fmt.Sprintf("name%05d", i), "1", "all", ""))
			text.WriteByte('\n')
		}
		return text.String()
	}
	rows := []struct{ name, text, want string }{
		{"nothing", "", "empty"},
		{"only an empty line", "\n", "empty"},
		{"no empty line at the end", a, "one empty line each"},
		{"two empty lines", a + "\n\n" + b + "\n", "one empty line each"},
		{"an empty line before", "\n" + good, "one empty line each"},
		{"no last newline", strings.TrimSuffix(good, "\n\n"), "one empty line each"},
		{"out of order", b + "\n" + a + "\n", "follows"},
		{"a package twice", a + "\n" + a + "\n", "follows"},
		{"a name and version twice", a + "\n" + string(stanzaOf("aa", "1", "all", "")) + "\n", "follows"},
		{"a field twice", strings.Replace(good, "Size:", "size: 1\nSize:", 1), "twice"},
		{"a field missing", strings.Replace(good, "SHA256:", "SHA512:", 1), "SHA256 is missing"},
		{"a size with a sign", strings.Replace(good, "Size: ", "Size: +", 1), "plain decimal"},
		{"a path that leaves the archive", strings.Replace(good, "Filename: pool", "Filename: ../pool", 1), "no clean path"},
		{"a path that is the archive", regexp.MustCompile("(?m)^Filename: .*$").ReplaceAllString(good, "Filename: ."), "no clean path"},
		{"a control character", strings.Replace(good, "made", "ma\x01de", 1), "0x01"},
		{"a name of two lines", strings.Replace(good, "Package: aa\n", "Package: aa\n bb\n", 1), "more than one line"},
		{"too many packages", many(maxChunkCount + 1), "more than 2048"},
		{"too many bytes", strings.Repeat("x", largestChunk+1), "the limit is"},
		{"a stanza that is too large", strings.Replace(good, "made", strings.Repeat("x", MaxStanza), 1), "more than"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if row.text == good {
				t.Fatal("the row changes nothing")
			}
			if _, err := decodeChunk([]byte(row.text)); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error is %v, want one about %q", err, row.want)
			}
		})
	}
}

// A state must say of a chunk what the chunk is.
func TestAStateThatDescribesAChunkWrongly(t *testing.T) {
	ctx, store := context.Background(), &Memory{}
	s := exampleState(t, store)
	for name, change := range map[string][2]string{"count": {" 2 ", " 1 "}, "size": {" 2 6", " 2 7"}, "first": {"hello 2.10-3", "hello 2.10-2"}} {
		text := strings.Replace(string(s.Text()), change[0], change[1], 1)
		if text == string(s.Text()) {
			t.Fatalf("%s: nothing changed in\n%s", name, text)
		}
		wrong := must[State](t)(Decode([]byte(text)))
		for _, err := range All(ctx, store, wrong, Key{"apps", "amd64"}) {
			if err == nil || !strings.Contains(err.Error(), "its state counts") {
				t.Errorf("%s: error is %v", name, err)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	store := &Memory{}
	f.Add(exampleState(f, store).Text())
	f.Add(largeState(f, store, 1500).Text())
	f.Add([]byte(header))
	f.Add([]byte(header + "Index: apps amd64 99999999999\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Decode(text)
		if err != nil {
			return
		}
		again, err := build(context.Background(), &Memory{}, s.indices)
		if err != nil || !bytes.Equal(again.Text(), text) || again.ID() != s.ID() {
			t.Fatalf("accepted %q, writes %q: %v", text, again.Text(), err)
		}
	})
}

func FuzzDecodeChunk(f *testing.F) {
	a, b := stanzaOf("aa", "1", "amd64", ""), stanzaOf("bb", "1", "all", "")
	f.Add(fmt.Appendf(nil, "%s\n%s\n", a, b))
	f.Add(fmt.Appendf(nil, "%s\n\n%s\n", a, b))
	f.Add(a[:len(a)-1])
	f.Add([]byte("\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		packages, err := decodeChunk(text)
		if err != nil {
			return
		}
		if again := encodeChunk(packages); !bytes.Equal(again, text) {
			t.Fatalf("accepted %q, writes %q", text, again)
		}
		for _, p := range packages {
			again, err := ParsePackage(p.Stanza)
			if err != nil || again.Ref() != p.Ref() {
				t.Fatalf("%s: %v", p.Ref(), err)
			}
		}
	})
}
