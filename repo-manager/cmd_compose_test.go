package main

import (
	"strings"
	"testing"

	"aptfleet/internal/protocol"
)

func TestComposedStatesAreTold(t *testing.T) {
	made := protocol.Composed{
		Base: "aa", State: "bb", Packages: 9, Snapshot: &protocol.Snapshot{ID: "20261120T000000Z"}, Differences: differences.Differences,
	}
	for range 7 {
		made.Conflicts = append(made.Conflicts, protocol.Conflict{Component: "apps", Name: "p\x1b[2J", Versions: [][]string{{"2", "1"}, {}, {"3"}}, Taken: 2})
		made.Unmet = append(made.Unmet, protocol.Unmet{Package: "p=1:all", Architecture: "amd64", Relation: "q | r"})
	}
	answers := map[string]any{
		"POST /api/v1/pipelines/demo/snapshots/merge":  made,
		"POST /api/v1/pipelines/demo/snapshots/pick":   made,
		"POST /api/v1/pipelines/demo/snapshots/filter": made,
	}
	for _, args := range [][]string{{"merge", "canary", "dev", "a"}, {"pick", "canary", "p", "--from", "dev"}, {"filter", "canary", "p, !q"}} {
		if args[0] != "merge" {
			made.Conflicts = nil
			answers["POST /api/v1/pipelines/demo/snapshots/"+args[0]] = made
		}
		args = append([]string{"--pipeline", "demo", "snapshot"}, args...)
		status, out, errs := run(t, true, answers, args...)
		if want := "created snapshot 20261120T000000Z of 9 packages; compared with canary: 1 new, 1 upgraded, 1 downgraded, 1 rebuilt, 1 gone\n"; status != 0 || out != want {
			t.Errorf("%v: exit %d, terminal: %q", args, status, out)
		}
		for _, want := range []string{"missing for amd64: q | r, which p=1:all depends on\n", "and 2 more dependencies that are missing\n"} {
			if !strings.Contains(errs, want) {
				t.Errorf("%v: errors are %q, want %q", args, errs, want)
			}
		}
		for _, want := range []string{`p\x1b[2J of apps from a: 2 and 1 in canary, 3 in a` + "\n", "and 2 more packages that differ\n"} {
			if strings.Contains(errs, want) != (args[3] == "merge") {
				t.Errorf("%v: errors are %q, want %q", args, errs, want)
			}
		}
		if _, out, _ = run(t, false, answers, args...); out != "20261120T000000Z\n" {
			t.Errorf("%v: pipe: %q", args, out)
		}
		if _, out, errs = run(t, false, answers, append(args, "--json")...); !strings.HasPrefix(out, "{\n  \"base\": \"aa\"") || errs != "" {
			t.Errorf("%v: json: %q, %q", args, out, errs)
		}
	}
	made.Snapshot = nil
	answers["POST /api/v1/pipelines/demo/snapshots/merge"] = made
	_, out, errs := run(t, false, answers, "--pipeline", "demo", "snapshot", "merge", "canary", "dev", "--dry-run")
	if !strings.Contains(out, "↑\tapps\tc") || !strings.Contains(errs, "a snapshot of 9 packages would be made; compared with canary: 1 new, ") || !strings.HasSuffix(errs, "nothing was changed\n") {
		t.Errorf("dry run: %q, %q", out, errs)
	}
	if status, _, errs := run(t, false, answers, "--pipeline", "demo", "snapshot", "merge", "canary", "dev", "--on-conflict", "coin"); status != 2 || !strings.Contains(errs, "want refuse, latest, first") {
		t.Errorf("an unknown rule: exit %d, %q", status, errs)
	}
}
