package script

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func write(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExecutables(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "20-b"), "", 0o755)
	write(t, filepath.Join(dir, "10-a"), "", 0o755)
	write(t, filepath.Join(dir, "README"), "", 0o644)
	if err := os.Mkdir(filepath.Join(dir, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	all, err := Executables(dir)
	if err != nil || fmt.Sprint(all) != fmt.Sprint([]string{dir + "/10-a", dir + "/20-b"}) {
		t.Errorf("%v, %v", all, err)
	}
	if all, err := Executables(dir + "/none"); err != nil || len(all) != 0 {
		t.Errorf("no directory: %v, %v", all, err)
	}
	if _, err := Executables(dir + "/README"); err == nil {
		t.Error("a file is a directory of executables")
	}
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{
		`test "$1 $2 $X" = "a b c"`:              "",
		"echo first; echo no answer >&2; exit 3": "no answer",
		"exit 3":                                 "exit status 3",
		"kill -9 $$":                             "signal: killed",
		`printf '%4000s last' x; exit 1`:         "x last",
		`printf '\377'; exit 1`:                  "?",
	} {
		err := Run(t.Context(), 10*time.Second, []string{"X=c"}, write(t, filepath.Join(dir, "s"), text, 0o755), "a", "b")
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestExitStatus(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]int{"echo not now; exit 21": 21, "exit 1": 1, "kill -9 $$": 0} {
		var exit *Exit
		status := 0
		if errors.As(Run(t.Context(), 10*time.Second, nil, write(t, filepath.Join(dir, "s"), text, 0o755)), &exit) {
			status = exit.Status
		}
		if status != want {
			t.Errorf("%s: status %d, want %d", text, status, want)
		}
	}
}

func TestItsChildrenEndWithIt(t *testing.T) {
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "s"), "(sleep 1; touch "+dir+"/alive) & sleep 100", 0o755)
	if err := Run(t.Context(), 200*time.Millisecond, nil, path); err == nil || err.Error() != "it took more than 200ms" {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Run(ctx, time.Second, nil, path); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	time.Sleep(1200 * time.Millisecond)
	if _, err := os.Stat(dir + "/alive"); err == nil {
		t.Error("a child lives on")
	}
}
