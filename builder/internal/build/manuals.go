package build

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"

	"aptfleet/internal/debwriter"
)

// manualPage is a page where man(1) looks for it, maybe of a language, and not
// compressed yet.
var manualPage = regexp.MustCompile(`^/usr/share/man/(?:[^/]+/)?man[1-9]/[^/]+\.[1-9][a-z]*$`)

// maxManual bounds a manual page, in bytes.
const maxManual = 4 << 20

// packManual compresses a manual page, as Policy 12.1 asks for and dh_compress
// does. Other files it leaves as they are.
func packManual(e debwriter.Entry, source string) (debwriter.Entry, error) {
	if !manualPage.MatchString(e.Path) {
		return e, nil
	}
	if e.Size > maxManual {
		return e, fmt.Errorf("the manual page %s has more than %d bytes", source, maxManual)
	}
	text, err := os.ReadFile(source)
	if err != nil {
		return e, err
	}
	packed, err := gzipped(string(text))
	if err != nil {
		return e, fmt.Errorf("cannot compress %s: %w", source, err)
	}
	e.Path, e.Size = e.Path+".gz", int64(len(packed))
	e.Open = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed)), nil }
	return e, nil
}
