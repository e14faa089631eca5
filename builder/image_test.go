package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/internal/term"
)

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"1": 1, "4G": 4 << 30, "512M": 512 << 20, "3K": 3 << 10, "1T": 1 << 40} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "G", "-1G", "0", "4GB", "4g", "1.5G", "4 G", "9999999T", "GG", "4GG", "1e3"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}

// What cannot become an image is refused before anything is made.
func TestImageRefusals(t *testing.T) {
	output := filepath.Join(t.TempDir(), "x.img")
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"--snapshot", "canary", "--package", "x", "--output", output}, 2, "which server"},
		{[]string{"--server", "http://127.0.0.1:1", "--package", "x", "--output", output}, 2, "--snapshot, --product (or --package) and --output"},
		{[]string{"--server", "http://127.0.0.1:1", "--snapshot", "canary", "--output", output}, 2, "--snapshot, --product (or --package) and --output"},
		{[]string{"--server", "http://127.0.0.1:1", "--snapshot", "canary", "--product", "p", "--package", "x", "--output", output}, 2, "no others"},
		{[]string{"--server", "http://127.0.0.1:1", "--snapshot", "canary", "--module", "lte", "--package", "x", "--output", output}, 2, "modules are those of a product"},
		{[]string{"--server", "http://127.0.0.1:1", "--snapshot", "canary", "--package", "x", "--output", output, "--size", "4X"}, 2, "is no size"},
		{[]string{"--server", "http://127.0.0.1:1", "--snapshot", "canary", "--package", "x", "--output", output, "--settings", "/does/not/exist"}, 1, "no such file"},
		{[]string{"--server", "http://127.0.0.1:1", "--snapshot", "canary", "--package", "x", "--output", output, "--pipeline", "demo"}, 1, "127.0.0.1:1"},
	} {
		var out, errs strings.Builder
		io := &term.IO{Out: &out, Err: &errs}
		status := run(t.Context(), io, func(string) (string, bool) { return "", false }, append([]string{"image"}, c.args...))
		if os.Geteuid() != 0 && c.status == 1 {
			c.says = "needs root"
		}
		if status != c.status || !strings.Contains(errs.String(), c.says) {
			t.Errorf("%v: %d %s, want %d with %q", c.args, status, errs.String(), c.status, c.says)
		}
		if _, err := os.Stat(output); err == nil {
			t.Fatalf("%v made something", c.args)
		}
	}
}
