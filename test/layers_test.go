// Package test looks at the house as a whole: which directory may import
// which, and that the tree keeps its shape.
package test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "aptfleet"

// A layer names packages by path below the module ("x/..." for a subtree) and
// what they must never reach, directly or through our own packages.
type layer struct {
	from   string
	never  []string
	only   []string // of ours, the only ones that may be reached; nil: no limit
	reason string
}

var layers = []layer{
	{
		from:   "snapshots",
		never:  []string{"os", "os/...", "net", "net/...", "database/sql", "syscall", "golang.org/x/sys/...", "io/ioutil"},
		only:   []string{"internal/deb"},
		reason: "a release is a value: it must be provable by tests alone",
	},
	{from: "builder/...", never: []string{module + "/repo-manager/...", module + "/device-updater/..."}, reason: "programs meet over HTTP and files"},
	{from: "repo-manager/...", never: []string{module + "/builder/...", module + "/device-updater/..."}, reason: "programs meet over HTTP and files"},
	{from: "device-updater/...", never: []string{module + "/builder/...", module + "/repo-manager/..."}, reason: "programs meet over HTTP and files"},
	{
		from:   "device-updater/...",
		never:  []string{"database/sql", "github.com/mattn/go-sqlite3", "github.com/gin-gonic/..."},
		reason: "the device runs one small static binary",
	},
	{
		from: "repo-manager/internal/{release,fleet,configuration,product,access,reading,certificate,pool,publish,blobs,incoming,mirror,backup}",
		never: []string{
			module + "/repo-manager/internal/sqlite", module + "/repo-manager/internal/api", module + "/repo-manager/internal/ui",
			"github.com/gin-gonic/...", "database/sql",
		},
		reason: "the domain knows neither who stores nor who shows it; main wires",
	},
	{
		from:   "repo-manager/internal/{release,publish,mirror,fleet,configuration,product,access,reading,incoming,backup,api,ui}",
		never:  []string{module + "/repo-manager/internal/blobs", module + "/repo-manager/internal/pool", module + "/repo-manager/internal/sqlite"},
		reason: "metadata, blobs and package files are behind interfaces: whoever uses a store does not know which it is",
	},
	{
		from:   "repo-manager",
		never:  []string{module + "/repo-manager/internal/{storetest,blobs/blobstest,pool/pooltest}"},
		reason: "suites and their references in memory are for tests alone",
	},
	{
		from:   "internal/seal",
		never:  []string{"os", "os/...", "net", "net/...", "syscall", "golang.org/x/sys/..."},
		only:   []string{},
		reason: "a secret has no way out of the arithmetic that encrypts it",
	},
	{
		from:   "repo-manager/internal/frame",
		never:  []string{"os", "os/...", "net", "net/...", "syscall", "golang.org/x/sys/..."},
		only:   []string{},
		reason: "a frame is a format: it must be provable by tests alone, wherever it is kept",
	},
	{from: "device-updater/internal/rootfs", never: []string{module + "/device-updater/internal/boot", module + "/device-updater/internal/update"}, reason: "only the state machine composes back ends"},
	{from: "device-updater/internal/boot", never: []string{module + "/device-updater/internal/rootfs", module + "/device-updater/internal/update"}, reason: "only the state machine composes back ends"},
	{from: "internal/tlspin", never: []string{"golang.org/...", "github.com/..."}, only: []string{}, reason: "devices carry it: the standard library is enough"},
	{from: "device-updater/internal/{apt,archive,drift,dropin,evidence,health,uplink,agent,journal,identity,enrol,assignment,exchange,script,settings,hardware,firmware,inhibit,window,hook}", never: []string{module + "/device-updater/internal/update"}, reason: "a back end never knows the state machine"},
	{from: "device-updater", never: []string{module + "/device-updater/internal/servertest"}, reason: "the server that lies is for tests alone"},
	{from: "device-updater", never: []string{module + "/device-updater/internal/rootfs/rootfstest"}, reason: "the suite of back ends is for tests alone"},
	{from: "device-updater", never: []string{module + "/device-updater/internal/apttest"}, reason: "archives of hand-made packages are for tests alone"},
	{from: "web", only: []string{}, reason: "what a browser is given depends on nothing of ours"},
	{from: "internal/...", never: []string{module + "/builder/...", module + "/repo-manager/...", module + "/device-updater/...", module + "/web"}, reason: "what programs share knows no program"},
	{from: "test/microcontroller/...", never: []string{module + "/device-updater/..."}, reason: "the hardware that the updater could destroy shares no code with it"},
	{from: "test/device/...", never: []string{module + "/device-updater/..."}, reason: "the loader that judges the updater shares no code with it"},
}

func TestImports(t *testing.T) {
	graph := imports(t)
	for _, name := range []string{"builder", "repo-manager", "device-updater", "snapshots", "web"} {
		if graph[name] == nil {
			t.Errorf("no Go package in %s/: the rules below would hold for nothing", name)
		}
	}
	for _, broken := range violations(graph, layers) {
		t.Error(broken)
	}
}

// TestImportRulesBite gives the checker a graph that breaks each kind of
// rule: a checker that says yes to everything would pass TestImports.
func TestImportRulesBite(t *testing.T) {
	graph := map[string][]string{
		"snapshots":                        {module + "/internal/deb"},
		"internal/deb":                     {module + "/internal/x"},
		"internal/x":                       {"os/exec"},
		"repo-manager/internal/release":    {"database/sql", module + "/repo-manager/internal/publish"},
		"repo-manager/internal/publish":    {module + "/repo-manager/internal/blobs"},
		"repo-manager/internal/frame":      {module + "/internal/x"},
		"web":                              {module + "/internal/x"},
		"device-updater":                   {module + "/device-updater/internal/deep"},
		"device-updater/internal/deep":     {"github.com/gin-gonic/gin"},
		"builder":                          {module + "/device-updater/internal/deep"},
		"device-updater/internal/rootfs":   {module + "/device-updater/internal/boot"},
		"device-updater/internal/harmless": {"fmt"},
	}
	got := strings.Join(violations(graph, layers), "\n")
	for _, want := range []string{
		"snapshots must not reach os/exec", "snapshots may reach of ours only internal/deb, not internal/x",
		"repo-manager/internal/release must not reach database/sql", "repo-manager/internal/release must not reach aptfleet/repo-manager/internal/blobs",
		"repo-manager/internal/publish must not reach aptfleet/repo-manager/internal/blobs", "repo-manager/internal/frame may reach of ours only nothing, not internal/x",
		"repo-manager/internal/frame must not reach os/exec", "web may reach of ours only nothing, not internal/x",
		"device-updater must not reach github.com/gin-gonic/gin", "builder must not reach aptfleet/device-updater/internal/deep",
		"device-updater/internal/rootfs must not reach aptfleet/device-updater/internal/boot",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the checker missed: %s\nit found:\n%s", want, got)
		}
	}
	if strings.Contains(got, "harmless") {
		t.Errorf("the checker blames a harmless package:\n%s", got)
	}
}

func TestFilesHoldOneIdea(t *testing.T) {
	const limit = 700
	walk(t, func(name string) {
		content, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(string(content), "\n"); lines > limit {
			t.Errorf("%s has %d lines, the limit is %d: split it by idea", name, lines, limit)
		}
	})
}

// imports maps every package directory to what its non-test files import,
// whatever their build tags.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	graph := map[string][]string{}
	walk(t, func(name string) {
		if strings.HasSuffix(name, "_test.go") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", name), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		dir := path.Dir(name)
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			graph[dir] = append(graph[dir], imported)
		}
		if graph[dir] == nil {
			graph[dir] = []string{}
		}
	})
	return graph
}

// walk calls visit with every .go file of the tree, relative to its top.
func walk(t *testing.T, visit func(name string)) {
	t.Helper()
	err := filepath.WalkDir("..", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "testdata" || entry.Name() == "bin") {
			return fs.SkipDir
		}
		if strings.HasSuffix(name, ".go") {
			relative, err := filepath.Rel("..", name)
			if err != nil {
				return err
			}
			visit(filepath.ToSlash(relative))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func violations(graph map[string][]string, rules []layer) []string {
	var broken []string
	for _, rule := range rules {
		for dir := range graph {
			if !matches(rule.from, dir) {
				continue
			}
			for imported, via := range reach(graph, dir) {
				ours, isOurs := strings.CutPrefix(imported, module+"/")
				for _, pattern := range rule.never {
					if matches(pattern, imported) {
						broken = append(broken, dir+" must not reach "+imported+" (via "+via+"): "+rule.reason)
					}
				}
				if rule.only != nil && isOurs && !slices.Contains(rule.only, ours) {
					allowed := strings.Join(rule.only, ", ")
					if allowed == "" {
						allowed = "nothing"
					}
					broken = append(broken, dir+" may reach of ours only "+allowed+", not "+ours+": "+rule.reason)
				}
			}
		}
	}
	slices.Sort(broken)
	return broken
}

// reach returns everything that dir imports, directly or through packages of
// ours, with the package that imports it.
func reach(graph map[string][]string, dir string) map[string]string {
	found := map[string]string{}
	todo := []string{dir}
	for len(todo) > 0 {
		at := todo[0]
		todo = todo[1:]
		for _, imported := range graph[at] {
			if _, seen := found[imported]; seen {
				continue
			}
			found[imported] = at
			if ours, ok := strings.CutPrefix(imported, module+"/"); ok {
				todo = append(todo, ours)
			}
		}
	}
	return found
}

// matches reports whether name is pattern, lies below "pattern/...", or fits
// one of the alternatives in braces.
func matches(pattern, name string) bool {
	if before, rest, ok := strings.Cut(pattern, "{"); ok {
		inside, after, _ := strings.Cut(rest, "}")
		for _, one := range strings.Split(inside, ",") {
			if matches(before+one+after, name) {
				return true
			}
		}
		return false
	}
	if tree, ok := strings.CutSuffix(pattern, "/..."); ok {
		return name == tree || strings.HasPrefix(name, tree+"/")
	}
	return name == pattern
}
