package publish

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"aptfleet/snapshots"
)

// The program in docs/snapshot-format.md, which shares no code with us, finds
// the id of a state in what is published of it.
func TestTheDocumentedProgramFindsTheID(t *testing.T) {
	document, err := os.ReadFile("../../../docs/snapshot-format.md")
	if err != nil {
		t.Fatal(err)
	}
	program := regexp.MustCompile("(?s)```python state-id.py\n(.*?)```").FindSubmatch(document)
	if program == nil {
		t.Fatal("the document has no program")
	}
	script := filepath.Join(t.TempDir(), "state-id.py")
	write(t, script, program[1])
	if _, err := exec.LookPath("python3"); err != nil {
		t.Fatal("python3 is missing: `make test` installs it")
	}
	f := newFixture(t)
	border := func(text string) bool {
		sum := sha256.Sum256([]byte(text))
		return binary.BigEndian.Uint32(sum[:])%512 == 0
	}
	packages := many(t, 2000)
	for before := 62; before <= 66; before++ { // versions before one that is a border if they are enough
		name := fmt.Sprint("run", before)
		for i := range before {
			packages = append(packages, described(t, name, fmt.Sprint("0.", i), "amd64"))
		}
		last := 1
		for !border(name + " " + fmt.Sprint(last)) {
			last++
		}
		packages = append(packages, described(t, name, fmt.Sprint(last), "amd64"))
	}
	for i := 0; len(packages) < 5000; i++ { // more than a chunk holds, without a border
		if name := fmt.Sprint("z", i); !border(name) {
			packages = append(packages, described(t, name, "1:1~rc1", "all"))
		}
	}
	full := f.state(packages...)
	changed, err := snapshots.Apply(context.Background(), f.store, full, snapshots.Edit{Component: "apps", Remove: []snapshots.Ref{packages[7].Ref(), packages[2001].Ref()}})
	if err != nil {
		t.Fatal(err)
	}
	for name, state := range map[string]snapshots.State{"nothing": f.state(), "many packages": full, "some less": changed} {
		f.offer(state)
		out, err := exec.Command("python3", script, filepath.Join(f.public, "demo/dev/dists/trixie")).CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != state.ID().String() {
			t.Errorf("%s: it finds %s (%v), the state is %s", name, out, err, state.ID())
		}
	}
}
