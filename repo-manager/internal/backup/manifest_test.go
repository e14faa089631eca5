package backup

import (
	"bytes"
	"crypto/sha256"
	"reflect"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 123456000, time.UTC)

func example() Manifest {
	return Manifest{
		ID: "20261120T120000Z", Created: noon, By: "ann", Program: "1.0", Change: 7, Key: "F00D", Keys: true,
		Files: []File{
			{Path: "keys/archive.key", Mode: 0o600, ModTime: time.Unix(5, 6), Parts: []Part{{sha256.Sum256([]byte("a")), 1}}},
			{Path: "public/empty file", Mode: 0o444, ModTime: time.Unix(-5, 6)},
			{Path: "repo-manager.db", Mode: 0o600, ModTime: noon.Local(), Parts: []Part{{sha256.Sum256([]byte("b")), 1}, {sha256.Sum256(nil), 0}}},
		},
		Lost: []string{"public/pool/x", "public/pool/y"},
	}
}

func TestManifestComesBack(t *testing.T) {
	text := example().encode()
	got, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got.Files { // instants, not places
		if !got.Files[i].ModTime.Equal(example().Files[i].ModTime) {
			t.Errorf("%s: modified at %v", got.Files[i].Path, got.Files[i].ModTime)
		}
		got.Files[i].ModTime = example().Files[i].ModTime
	}
	if !reflect.DeepEqual(got, example()) {
		t.Errorf("got %+v\nwant %+v", got, example())
	}
}

// reseal gives a changed manifest its checksum, as whoever means harm would.
func reseal(text string) []byte {
	body := text[:strings.LastIndex(text, "sha256 ")]
	return []byte(body + sumLine([]byte(body)))
}

func TestDecodeRefuses(t *testing.T) {
	whole := string(example().encode())
	replaced := func(old, new string) []byte {
		if !strings.Contains(whole, old) {
			t.Fatalf("the example has no %q", old)
		}
		return reseal(strings.Replace(whole, old, new, 1))
	}
	for name, c := range map[string]struct {
		text []byte
		want string
	}{
		"nothing":             {nil, "checksum"},
		"a cut":               {[]byte(whole[:len(whole)-1]), "checksum"},
		"half":                {[]byte(whole[:len(whole)/2]), "checksum"},
		"a flipped bit":       {bytes.Replace([]byte(whole), []byte("ann"), []byte("anm"), 1), "checksum"},
		"a newer format":      {replaced("backup 1", "backup 2"), "newer repo-manager"},
		"another file":        {reseal("hello\nsha256 x\n"), "no id"},
		"a way out":           {replaced("keys/archive.key", "../archive.key"), "path"},
		"an absolute path":    {replaced("keys/archive.key", "/etc/passwd"), "path"},
		"the root":            {replaced("keys/archive.key", "."), "path"},
		"control characters":  {replaced("keys/archive.key", "keys/\x1b[2J"), "path"},
		"two of a path":       {replaced("public/empty file", "keys/archive.key"), "out of order"},
		"a set-uid file":      {replaced("file 0600", "file 4755"), "mode"},
		"a file without time": {replaced("file 0600 5.000000006", "file 0600 5"), "time"},
		"a negative size":     {replaced(" 1\nfile", " -1\nfile"), "size"},
		"an unknown line":     {replaced("by ann", "nice\nby ann"), "form"},
		"another order":       {replaced("by ann\nprogram 1.0", "program 1.0\nby ann"), "form"},
		"an id of no time":    {replaced("id 2026", "id 2O26"), "no id"},
		"an orphan":           {reseal("aptfleet backup 1\n 00 1\nsha256 x\n"), "object"},
	} {
		if _, err := decode(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v does not name %q", name, err, c.want)
		}
	}
}

// Whatever is read from a disk, what is accepted is what would be written.
func FuzzDecode(f *testing.F) {
	f.Add(example().encode())
	f.Add(Manifest{ID: "20261120T120000Z", Created: noon}.encode())
	f.Fuzz(func(t *testing.T, text []byte) {
		if i := bytes.LastIndex(text, []byte("sha256 ")); i >= 0 {
			text = reseal(string(text))
		}
		m, err := decode(text)
		if err == nil && !bytes.Equal(m.encode(), text) {
			t.Fatalf("%q was accepted", text)
		}
	})
}
