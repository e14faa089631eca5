package bom

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func sample() BOM {
	return BOM{
		State: strings.Repeat("0a", 32), Product: "gateway", Architecture: "amd64", Modules: []string{"lte", "gps"}, TopLevel: []string{"zapp", "app"},
		Packages: []Package{
			{"zapp", "all", "1:2.0-1", strings.Repeat("11", 32)},
			{"libc6", "i386", "2.41", strings.Repeat("22", 32)},
			{"libc6", "amd64", "2.41", strings.Repeat("33", 32)},
		},
	}
}

// The format is what docs/device-protocol.md shows.
func TestFormat(t *testing.T) {
	want := "Aptfleet-BOM: 1\nState: " + strings.Repeat("0a", 32) + "\nProduct: gateway\nArchitecture: amd64\nModules: gps lte\n" +
		"Packages: app zapp\nRecommends: no\n\n" +
		"libc6:amd64=2.41 " + strings.Repeat("33", 32) + "\nlibc6:i386=2.41 " + strings.Repeat("22", 32) + "\nzapp:all=1:2.0-1 " + strings.Repeat("11", 32) + "\n"
	b := sample()
	if got := string(b.Encode()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	slices.Reverse(b.Packages)
	slices.Reverse(b.Modules)
	if got := string(b.Encode()); got != want {
		t.Errorf("in another order\n%s", got)
	}
	if got, want := Sum([]byte("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; got != want {
		t.Errorf("the sum is %s", got)
	}
}

func TestRoundTrip(t *testing.T) {
	empty := BOM{State: strings.Repeat("ff", 32), Product: "p", Architecture: "arm64"}
	for _, b := range []BOM{sample(), empty, {State: empty.State, Product: "p", Architecture: "arm64", Recommends: true, TopLevel: []string{"a0"}}} {
		text := b.Encode()
		again, err := Decode(text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if !bytes.Equal(again.Encode(), text) {
			t.Errorf("%q became %q", text, again.Encode())
		}
	}
}

func TestRefused(t *testing.T) {
	good := string(sample().Encode())
	for name, change := range map[string]func(string) string{
		"empty":                func(string) string { return "" },
		"another format":       func(s string) string { return strings.Replace(s, "BOM: 1", "BOM: 2", 1) },
		"cut":                  func(s string) string { return s[:len(s)-1] },
		"a blank line":         func(s string) string { return s + "\n" },
		"carriage return":      func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
		"order":                func(s string) string { return strings.Replace(s, "libc6:amd64", "zlib:amd64", 1) },
		"twice":                func(s string) string { return strings.Replace(s, "libc6:i386=2.41", "libc6:amd64=2.42", 1) },
		"upper case":           func(s string) string { return strings.ReplaceAll(s, "0a0a", "0A0A") },
		"no architecture":      func(s string) string { return strings.Replace(s, "zapp:all", "zapp", 1) },
		"bad version":          func(s string) string { return strings.Replace(s, "=1:2.0-1", "=", 1) },
		"bad name":             func(s string) string { return strings.Replace(s, "zapp:all", "../zapp:all", 1) },
		"bad product":          func(s string) string { return strings.Replace(s, "gateway", "../gateway", 1) },
		"recommends maybe":     func(s string) string { return strings.Replace(s, "Recommends: no", "Recommends: maybe", 1) },
		"modules out of order": func(s string) string { return strings.Replace(s, "gps lte", "lte gps", 1) },
		"a field more":         func(s string) string { return strings.Replace(s, "\n\n", "\nX: y\n\n", 1) },
		"two spaces":           func(s string) string { return strings.Replace(s, "Product: ", "Product:  ", 1) },
	} {
		bad := change(good)
		if bad == good {
			t.Fatalf("%s changes nothing", name)
		}
		if b, err := Decode([]byte(bad)); err == nil {
			t.Errorf("%s was taken: %+v", name, b)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample().Encode())
	f.Add([]byte(format))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := Decode(text)
		if err == nil && !bytes.Equal(b.Encode(), text) {
			t.Errorf("%q was taken and is written %q", text, b.Encode())
		}
	})
}
