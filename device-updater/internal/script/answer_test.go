package script

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAnswer(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{
		`echo "$1 $2 $X"; echo heard >&2`:                "a b c",
		"echo half; echo no answer >&2; exit 3":          "error: no answer",
		"echo half; exit 3":                              "error: exit status 3",
		"echo the pump runs >&2; exit 21":                "error: the pump runs",
		"exit 21":                                        "error: exit status 21",
		"head -c 70000 /dev/zero":                        "error: it answered more than 65536 bytes",
		"head -c 65536 /dev/zero | tr '\\000' x; exit 0": strings.Repeat("x", 65536),
		"kill -9 $$":                                     "error: signal: killed",
	} {
		var log bytes.Buffer
		out, err := Answer(t.Context(), 10*time.Second, []string{"X=c"}, &log, write(t, filepath.Join(dir, "s"), text, 0o755), "a", "b")
		got := strings.TrimSpace(string(out))
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != want {
			t.Errorf("%s: %.100q, want %.100q", text, got, want)
		}
		if exit := (*Exit)(nil); (errors.As(err, &exit) && exit.Status == Later) != strings.HasSuffix(text, "exit 21") {
			t.Errorf("%s: %v", text, err)
		}
		if strings.Contains(text, "heard") && log.String() != "heard\n" {
			t.Errorf("the log has %q", log.String())
		}
	}
	// It is killed with its children, which hold its output.
	began := time.Now()
	_, err := Answer(t.Context(), 200*time.Millisecond, nil, new(bytes.Buffer), write(t, filepath.Join(dir, "slow"), "sleep 60 & sleep 60", 0o755))
	if err == nil || err.Error() != "it took more than 200ms" || time.Since(began) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	gone, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the daemon stops"))
	if _, err := Answer(gone, time.Minute, nil, new(bytes.Buffer), write(t, filepath.Join(dir, "gone"), "sleep 60", 0o755)); err == nil || err.Error() != "the daemon stops" {
		t.Errorf("%v", err)
	}
}
