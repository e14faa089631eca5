package dropin

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEach(t *testing.T) {
	dir := t.TempDir()
	var seen []string
	all := func(name string, text []byte) error {
		seen = append(seen, name+"="+string(text))
		return nil
	}
	if err := Each(filepath.Join(dir, "absent"), all); err != nil || seen != nil {
		t.Errorf("no directory: %v, %v", seen, err)
	}
	for name, text := range map[string]string{"b.yaml": "2", "a.yaml": "1", "c.yml": "no", ".yaml~": "no"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := Each(dir, all); err != nil || strings.Join(seen, " ") != "a.yaml=1 b.yaml=2" {
		t.Errorf("%v, %v", seen, err)
	}
	bad := errors.New("bad")
	if err := Each(dir, func(string, []byte) error { return bad }); !errors.Is(err, bad) || err.Error() != "a.yaml: bad" {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), make([]byte, MaxFile+1), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Each(dir, all); err == nil || err.Error() != "a.yaml: it has more than 65536 bytes" {
		t.Error(err)
	}
}

func TestDecode(t *testing.T) {
	type file struct {
		One int `yaml:"one"`
	}
	for text, says := range map[string]string{
		"one: 1": "", "one: 1\n---\none: 2": "more than one document", "two: 2": "two", "one: x": "into int", "\tone": "yaml", "": "EOF",
	} {
		var f file
		err := Decode([]byte(text), &f)
		if says == "" && (err != nil || f.One != 1) || says != "" && (err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%q: %+v, %v", text, f, err)
		}
	}
}
