package hook_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/hook"
)

// put writes hooks NAME=SHELL of a point.
func put(t *testing.T, dir string, p hook.Point, hooks ...string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, string(p)), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, h := range hooks {
		name, text, _ := strings.Cut(h, "=")
		if err := os.WriteFile(filepath.Join(dir, string(p), name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAnswers: what hooks say, and which of them run.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name  string
		point hook.Point
		hooks []string
		want  string // the error
		later bool
		ran   string
	}{
		{"none", hook.BeforeDownload, nil, "", false, ""},
		{"yes", hook.BeforeDownload, []string{"10-a=run a", "20-b=run b"}, "", false, "a b"},
		{"later", hook.BeforeFinalise, []string{"10-a=run a; echo a sale is open; exit 21", "20-b=run b"}, "hook 10-a wants to be asked later: a sale is open", true, "a"},
		{"later, without a word", hook.BeforeDownload, []string{"10-a=exit 21"}, "hook 10-a wants to be asked later", true, ""},
		{"no", hook.BeforeFinalise, []string{"10-a=run a", "20-b=run b; echo no; exit 1", "30-c=run c"}, "hook 20-b: no", false, "a b"},
		{"late", hook.BeforeFinalise, []string{"10-a=sleep 60"}, "hook 10-a: it took more than 300ms", false, ""},
		{"told", hook.AfterCommit, []string{"10-a=run a; exit 21", "20-b=run b; echo no; exit 3", "30-c=run c"}, "hook 10-a: exit status 21\nhook 20-b: no", false, "a b c"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			var hooks []string
			for _, h := range c.hooks {
				name, text, _ := strings.Cut(h, "=")
				hooks = append(hooks, name+"=run() { echo $1 >>"+dir+"/ran; }; "+text)
			}
			put(t, dir, c.point, hooks...)
			if any := (hook.Hooks{Dir: dir}).Any(c.point); any != (len(hooks) > 0) {
				t.Errorf("any: %v", any)
			}
			err := hook.Hooks{Dir: dir, Limit: 300 * time.Millisecond}.Run(t.Context(), c.point, nil)
			said := ""
			if err != nil {
				said = err.Error()
			}
			var later *hook.Later
			if said != c.want || errors.As(err, &later) != c.later {
				t.Errorf("%q, later %v", said, later)
			}
			ran, err := os.ReadFile(dir + "/ran")
			if got := strings.Join(strings.Fields(string(ran)), " "); got != c.ran || err != nil && c.ran != "" {
				t.Errorf("ran %q, want %q", got, c.ran)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, hook.AfterRolledBack, `10-a=test "$APTFLEET_POINT $APTFLEET_REASON" = "after-rolled-back it hung"`)
	if err := (hook.Hooks{Dir: dir, Limit: time.Minute}).Run(t.Context(), hook.AfterRolledBack, []string{"APTFLEET_REASON=it hung"}); err != nil {
		t.Error(err)
	}
}

func TestCancelled(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, hook.BeforeDownload, "10-a=sleep 60")
	why := errors.New("a person")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(100*time.Millisecond, func() { cancel(why) })
	if err := (hook.Hooks{Dir: dir, Limit: time.Minute}).Run(ctx, hook.BeforeDownload, nil); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}
