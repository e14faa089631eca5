package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

// every calls f for a command and all below it, but for cobra's own.
func every(command *cobra.Command, f func(*cobra.Command)) {
	if command.Hidden || command.Name() == "help" || command.Name() == "completion" {
		return
	}
	f(command)
	for _, child := range command.Commands() {
		every(child, f)
	}
}

func TestEveryCommandExplainsItself(t *testing.T) {
	io, _, _ := fakeIO(false)
	root := newRootCommand(io)
	every(root, func(command *cobra.Command) {
		path := command.CommandPath()
		if command.Short == "" || strings.HasSuffix(command.Short, ".") {
			t.Errorf("%s: the short help %q is missing or ends in a full stop", path, command.Short)
		}
		if !strings.Contains(command.Example, "repo-manager ") {
			t.Errorf("%s has no example", path)
		}
		if !command.HasSubCommands() && command.Args == nil {
			t.Errorf("%s does not say which arguments it takes", path)
		}
		command.LocalFlags().VisitAll(func(flag *pflag.Flag) {
			if flag.Usage == "" {
				t.Errorf("%s --%s has no help", path, flag.Name)
			}
		})
		for _, text := range []string{command.Long, command.Example} {
			for line := range strings.Lines(text) {
				if len([]rune(line)) > 110 {
					t.Errorf("%s: a line of help is too wide: %q", path, line)
				}
			}
		}
	})
}

// TestExamplesParse runs the flags and arguments of every example through the
// command that it names, up to the point where it would act.
func TestExamplesParse(t *testing.T) {
	io, _, _ := fakeIO(false)
	root := newRootCommand(io)
	every(root, func(command *cobra.Command) {
		for line := range strings.Lines(strings.ReplaceAll(command.Example, "\\\n", " ")) {
			_, words, ok := strings.Cut(strings.TrimSpace(line), "repo-manager ")
			if !ok {
				continue
			}
			words, _, _ = strings.Cut(words, `)"`)
			words, _, _ = strings.Cut(words, "$(")
			args := strings.Fields(words)
			found, rest, err := root.Find(args)
			if err != nil || found == root {
				t.Errorf("%s: the example %q names no command: %v", command.CommandPath(), words, err)
				continue
			}
			for _, word := range rest {
				name, _, _ := strings.Cut(strings.TrimPrefix(word, "--"), "=")
				if strings.HasPrefix(word, "--") && found.Flags().Lookup(name) == nil && found.InheritedFlags().Lookup(name) == nil {
					t.Errorf("%s: the example %q uses the unknown flag %s", command.CommandPath(), words, word)
				}
			}
		}
	})
}

func fakeIO(terminal bool) (*term.IO, *bytes.Buffer, *bytes.Buffer) {
	var out, errs bytes.Buffer
	return &term.IO{
		Out: &out, Err: &errs, OutTerminal: terminal, ErrTerminal: terminal,
		Now: func() time.Time { return time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) },
	}, &out, &errs
}

// run executes a command line against a server of canned answers: "METHOD
// path?query" → value to answer as JSON.
func run(t *testing.T, terminal bool, answers map[string]any, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.Method+" "+r.URL.RequestURI()]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			answer = protocol.ErrorBody{Error: protocol.Error{Code: "not-found", Text: "no answer to " + r.Method + " " + r.URL.RequestURI()}}
		}
		if err, ok := answer.(protocol.Error); ok {
			w.WriteHeader(http.StatusConflict)
			answer = protocol.ErrorBody{Error: err}
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	io, out, errs := fakeIO(terminal)
	status = execute(t.Context(), io, append([]string{"--server", server.URL}, args...))
	return status, out.String(), errs.String()
}

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{
		{"snapshot", "sow"},
		{"frobnicate"},
		{"snapshot", "show"},
		{"snapshot", "show", "a", "b"},
		{"stage", "list", "--colour"},
		{"promote", "dev"},
		{"watch", "seven"},
		{"token", "revoke", "0"},
	} {
		status, out, errs := run(t, false, nil, args...)
		if status != term.ExitUsage || out != "" || !strings.Contains(errs, "hint: ") {
			t.Errorf("%v: exit %d, stdout %q, stderr %q", args, status, out, errs)
		}
		status, out, errs = run(t, false, nil, append(args, "--json")...)
		var body protocol.ErrorBody
		if err := json.Unmarshal([]byte(errs), &body); err != nil || status != term.ExitUsage || out != "" || body.Error.Code != "usage" {
			t.Errorf("%v --json: exit %d, stdout %q, stderr %q", args, status, out, errs)
		}
	}
	for _, args := range [][]string{{}, {"snapshot"}} {
		if status, out, errs := run(t, false, nil, args...); status != term.ExitUsage || out != "" || !strings.Contains(errs, "Examples:") {
			t.Errorf("%v: exit %d, stdout %q, stderr %q", args, status, out, errs)
		}
		if status, _, errs := run(t, false, nil, append(args, "--json")...); status != term.ExitUsage || !strings.Contains(errs, "needs a command") {
			t.Errorf("%v --json: exit %d, stderr %q", args, status, errs)
		}
	}
	if _, _, errs := run(t, false, nil, "snapshot", "sow"); !strings.Contains(errs, "did you mean show?") {
		t.Errorf("no suggestion: %s", errs)
	}
}

func pipelines(names ...string) []protocol.Pipeline {
	all := []protocol.Pipeline{}
	for _, n := range names {
		all = append(all, protocol.Pipeline{Name: n})
	}
	return all
}

func TestOnlyPipelineNeedsNoName(t *testing.T) {
	answers := map[string]any{
		"GET /api/v1/pipelines":             pipelines("demo"),
		"GET /api/v1/pipelines/demo/stages": []protocol.Stage{{Name: "dev", Packages: 3}},
	}
	if status, out, errs := run(t, false, answers, "stage", "list"); status != 0 || !strings.HasPrefix(out, "dev\t") {
		t.Errorf("one: exit %d, %q, %q", status, out, errs)
	}
	answers["GET /api/v1/pipelines"] = pipelines("demo", "other")
	if status, _, errs := run(t, false, answers, "stage", "list"); status != 2 || !strings.Contains(errs, "demo, other") {
		t.Errorf("two: exit %d, %q", status, errs)
	}
	if status, _, errs := run(t, false, answers, "stage", "list", "--pipeline", "demo"); status != 0 {
		t.Errorf("two, one named: exit %d, %q", status, errs)
	}
	answers["GET /api/v1/pipelines"] = pipelines()
	if status, _, errs := run(t, false, answers, "stage", "list"); status != 2 || !strings.Contains(errs, "pipeline create") {
		t.Errorf("none: exit %d, %q", status, errs)
	}
}

var differences = protocol.Diff{From: "aa", To: "bb", Differences: []protocol.Difference{
	{Component: "apps", Name: "a", Architecture: "amd64", Kind: "new", New: "1.0"},
	{Component: "apps", Name: "b", Architecture: "all", Kind: "gone", Old: "1.0"},
	{Component: "apps", Name: "c", Architecture: "amd64", Kind: "upgraded", Old: "1.0", New: "1.1"},
	{Component: "apps", Name: "d", Architecture: "amd64", Kind: "downgraded", Old: "2", New: "1"},
	{Component: "debian", Name: "e", Architecture: "amd64", Kind: "rebuilt", Old: "3", New: "3"},
}}

func TestDiff(t *testing.T) {
	answers := map[string]any{"GET /api/v1/pipelines/demo/diff?from=canary&to=dev": differences}
	_, out, errs := run(t, false, answers, "--pipeline", "demo", "snapshot", "diff", "canary", "dev")
	want := "+\tapps\ta\tamd64\t\t1.0\n-\tapps\tb\tall\t1.0\t\n↑\tapps\tc\tamd64\t1.0\t1.1\n↓\tapps\td\tamd64\t2\t1\n≠\tdebian\te\tamd64\t3\t3\n"
	if out != want || errs != "1 new, 1 upgraded, 1 downgraded, 1 rebuilt, 1 gone\n" {
		t.Errorf("pipe:\n%s%s", out, errs)
	}
	_, out, _ = run(t, true, answers, "--pipeline", "demo", "snapshot", "diff", "canary", "dev")
	want = "" +
		"   PACKAGE  ARCHITECTURE  VERSION    COMPONENT\n" +
		"+  a        amd64         1.0        apps\n" +
		"-  b        all           1.0        apps\n" +
		"↑  c        amd64         1.0 → 1.1  apps\n" +
		"↓  d        amd64         2 → 1      apps\n" +
		"≠  e        amd64         3          debian\n"
	if out != want {
		t.Errorf("terminal:\n%s", out)
	}
}

func TestPromotionTells(t *testing.T) {
	const post = "POST /api/v1/pipelines/demo/stages/canary/promote"
	answers := map[string]any{
		post: protocol.Move{Seq: 3, Stage: "canary", FromState: "aa", FromSnapshot: "20261119T000000Z", ToState: "bb", ToSnapshot: "20261120T000000Z"},
		"GET /api/v1/pipelines/demo/diff?from=aa&to=bb": differences,
	}
	args := []string{"--pipeline", "demo", "promote", "dev", "--to", "canary", "--reason", "r"}
	_, out, _ := run(t, true, answers, args...)
	if want := "canary moved: 20261119T000000Z → 20261120T000000Z: 1 new, 1 upgraded, 1 downgraded, 1 rebuilt, 1 gone\n"; out != want {
		t.Errorf("terminal: %q", out)
	}
	if _, out, _ = run(t, false, answers, args...); out != "20261120T000000Z\n" {
		t.Errorf("pipe: %q", out)
	}
	_, out, errs := run(t, false, answers, append(args, "--dry-run")...)
	if !strings.Contains(out, "↑\tapps\tc") || !strings.Contains(errs, "would move") {
		t.Errorf("dry run: %q, %q", out, errs)
	}
	answers[post] = protocol.Move{Stage: "canary", FromState: "aa", ToState: "aa", ToSnapshot: "20261119T000000Z"}
	if status, out, _ := run(t, true, answers, args...); status != 0 || !strings.HasPrefix(out, "nothing to do") {
		t.Errorf("again: exit %d, %q", status, out)
	}
	answers[post] = protocol.Error{Code: "conflict", Text: "cannot promote dev: canary moved meanwhile", Hint: "look again"}
	if status, out, errs := run(t, true, answers, args...); status != 1 || out != "" || !strings.Contains(errs, "moved meanwhile\nhint: look again\n") {
		t.Errorf("conflict: exit %d, %q, %q", status, out, errs)
	}
}

func TestFollowEndsLikeItsChange(t *testing.T) {
	for status, exit := range map[string]int{"done": 0, "failed": 1, "aborted": 1} {
		answers := map[string]any{"GET /api/v1/changes/7": protocol.Change{ID: 7, Status: status, Error: "no route", Log: []string{"fetched 3", "\x1b[2J"}}}
		got, _, errs := run(t, false, answers, "watch", "7")
		if got != exit || !strings.HasPrefix(errs, "fetched 3\n\\x1b[2J\n") {
			t.Errorf("%s: exit %d, %q", status, got, errs)
		}
		if status == "failed" && !strings.Contains(errs, "no route") {
			t.Errorf("%s does not say why: %q", status, errs)
		}
	}
}

func TestInterruptedFollowLeavesTheChange(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		defer cancel() // as SIGINT does
		if err := json.NewEncoder(w).Encode(protocol.Change{ID: 7, Status: "doing"}); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	io, _, errs := fakeIO(false)
	status := execute(ctx, io, []string{"--server", server.URL, "watch", "7"})
	if status != term.ExitInterrupted || !strings.Contains(errs.String(), "repo-manager watch 7") || strings.Contains(errs.String(), "context") {
		t.Errorf("exit %d, %q", status, errs)
	}
}

func TestCheckFails(t *testing.T) {
	report := protocol.Check{Files: 3, Bytes: 1000, Findings: []protocol.Finding{{Path: "public/pool/x.deb", Reason: "its SHA-256 is another"}}}
	status, out, errs := run(t, false, map[string]any{"POST /api/v1/check": protocol.CheckLine{Report: &report}}, "check")
	if status != 1 || out != "public/pool/x.deb\tits SHA-256 is another\ttry repo-manager check --repair\n" || !strings.HasSuffix(errs, "\nchecked 3 files, 1.0 kB: 1 bad\n") {
		t.Errorf("exit %d, %q, %q", status, out, errs)
	}
	report.Findings = []protocol.Finding{
		{Path: "a", Reason: "is missing", Repaired: "written again"},
		{Path: "b", Reason: "is short", Restore: "repo-manager package restore FILE", Aside: "damaged/b", NeededBy: []string{"demo/dev", "demo/canary"}},
	}
	status, out, errs = run(t, false, map[string]any{"POST /api/v1/check?repair=1": protocol.CheckLine{Report: &report}}, "check", "--repair")
	want := "a\tis missing\twritten again\nb\tis short\trepo-manager package restore FILE; what was there is damaged/b; needed by demo/dev, demo/canary\n"
	if status != 1 || out != want || !strings.HasSuffix(errs, "1 repaired, 1 must be restored\n") {
		t.Errorf("exit %d, %q, %q", status, out, errs)
	}
	report.Findings = report.Findings[:1]
	if status, _, errs := run(t, false, map[string]any{"POST /api/v1/check?repair=1": protocol.CheckLine{Report: &report}}, "check", "--repair"); status != 0 {
		t.Errorf("all repaired: exit %d, %q", status, errs)
	}
	report.Findings = []protocol.Finding{}
	if status, out, _ := run(t, false, map[string]any{"POST /api/v1/check": protocol.CheckLine{Report: &report}}, "check"); status != 0 || out != "" {
		t.Errorf("nothing bad: exit %d, %q", status, out)
	}
	if status, out, errs := run(t, false, map[string]any{"POST /api/v1/check": protocol.CheckLine{Report: &report}}, "check", "--json"); status != 0 || errs != "" || !strings.Contains(out, `"findings": []`) {
		t.Errorf("json: exit %d, %q, %q", status, out, errs)
	}
}

func TestCompletion(t *testing.T) {
	answers := map[string]any{
		"GET /api/v1/pipelines":                pipelines("demo"),
		"GET /api/v1/pipelines/demo":           protocol.Pipeline{Name: "demo", Stages: []string{"dev", "canary"}},
		"GET /api/v1/pipelines/demo/snapshots": []protocol.Snapshot{{ID: "20261120T000000Z"}},
	}
	for _, c := range []struct {
		want string
		args []string
	}{
		{"dev\ncanary\n", []string{"__complete", "stage", "show", ""}},
		{"dev\ncanary\n20261120T000000Z\n", []string{"__complete", "promote", ""}},
		{"demo\n:4\n", []string{"__complete", "stage", "list", "--pipeline", ""}},
		{"demo\n:4\n", []string{"__complete", "pipeline", "set", ""}},
		{"dev\ncanary\n:4\n", []string{"__complete", "promote", "dev", "--to", ""}},
		{"20261120T000000Z\n:4\n", []string{"__complete", "snapshot", "delete", ""}}, // which takes no stage
		{":4\n", []string{"__complete", "snapshot", "pick", "dev", ""}},
	} {
		if _, out, errs := run(t, false, answers, c.args...); !strings.HasPrefix(out, c.want) {
			t.Errorf("%v: %q, want %q (%s)", c.args, out, c.want, errs)
		}
	}
}

func TestSecretsStayOutOfHelp(t *testing.T) {
	t.Setenv("APTFLEET_TOKEN", "very-secret")
	_, out, errs := run(t, false, nil, "snapshot", "list", "--help")
	if strings.Contains(out+errs, "very-secret") || !strings.Contains(out, "APTFLEET_TOKEN") {
		t.Errorf("help: %s%s", out, errs)
	}
}
