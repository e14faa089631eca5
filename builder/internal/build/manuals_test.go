package build_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestManualPagesAreCompressed, and nothing that only looks like one.
func TestManualPagesAreCompressed(t *testing.T) {
	s := newSource(t, header+`version: 1.0
contents:
  - {src: man/*.1, dst: /usr/share/man/man1}
  - {src: man/hello.1, dst: /usr/share/man/de/man1/hello.1}
  - {src: man/hello.1, dst: /usr/share/hello/hello.1}
  - {src: man/packed.1.gz, dst: /usr/share/man/man8/packed.8.gz}
`, map[string]string{"man/hello.1": ".TH HELLO 1\n", "man/hello-again.1": ".TH AGAIN 1\n", "man/packed.1.gz": "as it is"})
	file := s.build("").File
	tree := t.TempDir()
	run(t, "dpkg-deb", "--extract", file, tree)
	for path, want := range map[string]string{
		"man/man1/hello.1.gz":       ".TH HELLO 1\n",
		"man/man1/hello-again.1.gz": ".TH AGAIN 1\n",
		"man/de/man1/hello.1.gz":    ".TH HELLO 1\n",
	} {
		if got := run(t, "gzip", "--decompress", "--stdout", filepath.Join(tree, "usr/share", path)); got != want {
			t.Errorf("%s has %q", path, got)
		}
	}
	list := run(t, "dpkg-deb", "--contents", file)
	for _, want := range []string{"./usr/share/hello/hello.1\n", "./usr/share/man/man8/packed.8.gz\n"} {
		if !strings.Contains(list, want) {
			t.Errorf("there is no %s in\n%s", strings.TrimSpace(want), list)
		}
	}
}
