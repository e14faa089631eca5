package scripts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"aptfleet/test/rig"
)

// programs is the directory with the built programs.
var programs string

func TestMain(m *testing.M) {
	os.Exit(rig.Main("aptfleet-scripts-", "", []string{"repo-manager", "builder"}, func(dir string) (int, error) {
		programs = dir
		return m.Run(), nil
	}))
}

func TestStories(t *testing.T) {
	for _, tool := range []string{"dpkg-deb", "script"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is missing: make test installs it", tool)
		}
	}
	mustNotStop(t)
	testscript.Run(t, testscript.Params{
		Dir:                 ".",
		UpdateScripts:       os.Getenv("APTFLEET_UPDATE") != "",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", programs+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("APTFLEET_DATA", filepath.Join(env.WorkDir, "data"))
			env.Setenv("TERM", "xterm")
			env.Setenv("SHELL", "/bin/sh") // what script(1) runs commands with
			env.Values[serverKey{}] = &server{data: filepath.Join(env.WorkDir, "data")}
			env.Values[earsKey{}] = &ears{came: make(chan string, 1000)}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"serve":    serve,
			"halt":     halt,
			"deb":      buildDeb,
			"damage":   damage,
			"cut":      cut,
			"keyring":  keyring,
			"http":     ask,
			"exits":    exits,
			"secret":   secret,
			"terminal": terminal,
			"shape":    shape,
			"device":   playDevice,
			"listen":   listen,
			"heard":    heard,
			"silent":   silent,
			"soon":     soon,
			"past":     past,
		},
	})
}

// mustNotStop looks for testscript's own command stop: nothing behind it is
// played, and the script passes.
func mustNotStop(t *testing.T) {
	t.Helper()
	scripts, err := filepath.Glob("*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, script := range scripts {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if words := strings.Fields(line); len(words) > 0 && words[0] == "stop" {
				t.Errorf("%s says stop, which ends the script there: halt stops the server", script)
			}
		}
	}
}
