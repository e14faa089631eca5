package scripts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// programs is the directory with the built programs.
var programs string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "aptfleet-scripts-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	build := exec.Command("go", "build", "-tags", "nomsgpack", "-o", dir+"/", "./repo-manager", "./builder")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot build the programs: %v\n%s", err, out)
		return 1
	}
	programs = dir
	return m.Run()
}

func TestStories(t *testing.T) {
	for _, tool := range []string{"dpkg-deb", "script"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is missing: make test installs it", tool)
		}
	}
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
			"stop":     stop,
			"deb":      buildDeb,
			"damage":   damage,
			"cut":      cut,
			"keyring":  keyring,
			"http":     ask,
			"exits":    exits,
			"secret":   secret,
			"terminal": terminal,
			"shape":    shape,
			"listen":   listen,
			"heard":    heard,
			"silent":   silent,
		},
	})
}
