package settings

import (
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/internal/seal"
)

const device = "gw-1"

// world is a device whose updater can be started again, and where its hooks
// write down what they were given.
type world struct {
	t     testing.TB
	dir   string // of the device
	hooks string
	key   *ecdh.PrivateKey
	now   time.Time
	boot  string // deployment
	*Settings
}

func newWorld(t testing.TB) *world {
	t.Helper()
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: t.TempDir(), key: key, now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC), boot: "1"}
	w.hooks = filepath.Join(w.dir, "hooks")
	w.hook("50-note", `echo "$(basename $APTFLEET_CONFIG) $APTFLEET_CONFIG_REVISION $*" >>`+w.notes())
	w.start()
	return w
}

func (w *world) start() {
	w.Settings = &Settings{
		Dir: filepath.Join(w.dir, "config"), Hooks: w.hooks, Deployment: w.boot, Limit: 10 * time.Second,
		Key: func() (*ecdh.PrivateKey, error) { return w.key, nil }, Clock: func() time.Time { return w.now },
	}
}

func (w *world) notes() string { return filepath.Join(w.dir, "notes") }

// noted is what the hook was given since it was last asked, a run a line.
func (w *world) noted() string {
	raw, err := os.ReadFile(w.notes())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(w.notes(), nil, 0o644); err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(string(raw))
}

func (w *world) hook(name, text string) {
	w.t.Helper()
	if err := os.MkdirAll(w.hooks, 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.hooks, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		w.t.Fatal(err)
	}
}

// config is a configuration as the server sends it: "key=value" words, the
// values of keys that begin with "s" are secrets.
func (w *world) config(revision string, words ...string) *protocol.AssignedConfig {
	w.t.Helper()
	c := &protocol.AssignedConfig{Revision: rev(revision), Values: map[string]any{}}
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		if !strings.HasPrefix(key, "s") {
			c.Values[key] = value
			continue
		}
		sealed, err := seal.Seal(w.key.PublicKey().Bytes(), device, key, []byte(value))
		if err != nil {
			w.t.Fatal(err)
		}
		if c.Secrets == nil {
			c.Secrets = make(map[string][]byte)
		}
		c.Secrets[key] = sealed
	}
	return c
}

func rev(name string) string { return strings.Repeat(name, 8)[:8] }

func (w *world) mustApply(c *protocol.AssignedConfig) {
	w.t.Helper()
	got, err := w.Apply(w.t.Context(), device, c)
	if err != nil || got != c.Revision {
		w.t.Fatalf("applied %q, %v; want %s", got, err, c.Revision)
	}
}

func (w *world) shown() string {
	w.t.Helper()
	v, err := Read(w.Dir)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(v.Revision, " ", v.Values, " ", v.Secrets)
}

func TestApply(t *testing.T) {
	w := newWorld(t)
	if got, err := w.Resume(t.Context()); got != "" || err != nil {
		t.Errorf("before anything: %q, %v", got, err)
	}
	first := w.config("a", "interval=30", "secret=hu sh", "name=it's \"$HOME\"")
	w.mustApply(first)
	if got := w.noted(); got != "aaaaaaaa aaaaaaaa interval name secret" {
		t.Errorf("the hook was given %q", got)
	}
	for range 3 {
		w.mustApply(first)
	}
	w.start()
	w.mustApply(first)
	if got, err := w.Resume(t.Context()); got != rev("a") || err != nil || w.noted() != "" {
		t.Errorf("what is applied was done again: %q, %v", got, err)
	}
	for name, want := range map[string]string{
		"current/config.json": "{\n  \"interval\": \"30\",\n  \"name\": \"it's \\\"$HOME\\\"\",\n  \"secret\": \"hu sh\"\n}\n",
		"current/config.env": "# Written by device-updater: what is changed here is lost.\nAPTFLEET_CONFIG_REVISION=\"aaaaaaaa\"\n" +
			"INTERVAL=\"30\"\nNAME=\"it's \\\"\\$HOME\\\"\"\nSECRET=\"hu sh\"\n",
		"current/secrets": "secret\n",
	} {
		raw, err := os.ReadFile(filepath.Join(w.Dir, name))
		if err != nil || string(raw) != want {
			t.Errorf("%s is %q, %v", name, raw, err)
		}
		info, err := os.Stat(filepath.Join(w.Dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	w.mustApply(w.config("b", "interval=5", "other=1", "secret=hu sh"))
	if got := w.noted(); got != "bbbbbbbb bbbbbbbb interval name other" {
		t.Errorf("the hook was given %q", got)
	}
	w.mustApply(w.config("c", "interval=5", "other=1", "secret=hu sh"))
	if got := w.noted(); got != "" {
		t.Errorf("nothing changed but the revision, and the hook was given %q", got)
	}
	w.mustApply(w.config("d"))
	if got := w.noted(); got != "dddddddd dddddddd interval other secret" || w.shown() != "dddddddd map[] []" {
		t.Errorf("the hook was given %q, shown is %s", got, w.shown())
	}
	if got, err := w.Apply(t.Context(), device, nil); got != rev("d") || err != nil {
		t.Errorf("without a configuration: %q, %v", got, err)
	}
	if got := w.left(); got != "[cccccccc current dddddddd status.json]" {
		t.Errorf("left are %s", got)
	}
}

// left is what is in the directory.
func (w *world) left() string {
	entries, err := os.ReadDir(w.Dir)
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return fmt.Sprint(names)
}

// TestWhatCannotBeTaken leaves the old configuration as it was.
func TestWhatCannotBeTaken(t *testing.T) {
	w := newWorld(t)
	w.mustApply(w.config("a", "interval=30", "secret=x"))
	w.noted()
	before, left := w.shown(), w.left()
	other, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	plain := func(values map[string]any) *protocol.AssignedConfig {
		return &protocol.AssignedConfig{Revision: rev("b"), Values: values}
	}
	many := make(map[string]any)
	for i := range protocol.MaxConfigKeys + 1 {
		many[fmt.Sprintf("k%d", i)] = true
	}
	much := make(map[string]any)
	for i := range protocol.MaxConfigTotal/protocol.MaxConfigValue + 1 {
		much[fmt.Sprintf("k%d", i)] = strings.Repeat("x", protocol.MaxConfigValue)
	}
	for name, c := range map[string]*protocol.AssignedConfig{
		"another key's secret": {Revision: rev("b"), Secrets: map[string][]byte{"secret": must(seal.Seal(other.PublicKey().Bytes(), device, "secret", []byte("x")))}},
		"another device's":     {Revision: rev("b"), Secrets: map[string][]byte{"secret": must(seal.Seal(w.key.PublicKey().Bytes(), "gw-2", "secret", []byte("x")))}},
		"another key's name":   {Revision: rev("b"), Secrets: map[string][]byte{"secret": must(seal.Seal(w.key.PublicKey().Bytes(), device, "other", []byte("x")))}},
		"garbage":              {Revision: rev("b"), Secrets: map[string][]byte{"secret": []byte("x")}},
		"a secret with a zero": {Revision: rev("b"), Secrets: map[string][]byte{"secret": must(seal.Seal(w.key.PublicKey().Bytes(), device, "secret", []byte("a\x00b")))}},
		"both":                 {Revision: rev("b"), Values: map[string]any{"secret": "x"}, Secrets: w.config("b", "secret=x").Secrets},
		"a path":               {Revision: "../../etc/x", Values: map[string]any{"a": "x"}},
		"no revision":          {Values: map[string]any{"a": "x"}},
		"the link's name":      {Revision: "current"},
		"a bad key":            plain(map[string]any{"a=b\nLD_PRELOAD": "x"}),
		"a taken key":          plain(map[string]any{"ld.preload": "x"}),
		"one variable":         plain(map[string]any{"a.b": "x", "a-b": "y"}),
		"a list":               plain(map[string]any{"a": []any{"x"}}),
		"nothing":              plain(map[string]any{"a": nil}),
		"a long one":           plain(map[string]any{"a": strings.Repeat("x", protocol.MaxConfigValue+1)}),
		"many":                 plain(many),
		"much":                 plain(much),
	} {
		got, err := w.Apply(t.Context(), device, c)
		if err == nil || got != rev("a") || !strings.HasPrefix(err.Error(), "cannot apply configuration ") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if w.shown() != before || w.left() != left || w.noted() != "" {
			t.Errorf("%s: shown is %s, left are %s", name, w.shown(), w.left())
		}
	}
	w.Key = func() (*ecdh.PrivateKey, error) { return nil, errors.New("no sealing key yet") }
	if got, err := w.Apply(t.Context(), device, w.config("b", "secret=x")); err == nil || got != rev("a") {
		t.Errorf("without a key: %q, %v", got, err)
	}
	w.mustApply(w.config("b", "a=1"))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestFailingHook: it is run again after a pause that grows, and what it says
// has no secret in it.
func TestFailingHook(t *testing.T) {
	w := newWorld(t)
	w.mustApply(w.config("a", "x=1", "secret=hush-hush"))
	w.noted()
	w.hook("60-app", `echo first; echo "cannot use hush-hush"; exit 3`)
	next := w.config("b", "x=2", "secret=hush-hush")
	want := `cannot apply configuration "bbbbbbbb": hook 60-app: cannot use (secret)`
	fails := func(c *protocol.AssignedConfig, noted string) {
		t.Helper()
		got, err := w.Apply(t.Context(), device, c)
		if got != rev("a") || err == nil || err.Error() != strings.ReplaceAll(want, "bbbbbbbb", c.Revision) {
			t.Errorf("%q, %v", got, err)
		}
		if got := w.noted(); got != noted {
			t.Errorf("hooks were given %q, want %q", got, noted)
		}
	}
	fails(next, "bbbbbbbb bbbbbbbb x")
	if w.shown() != "bbbbbbbb map[secret:hush-hush x:2] [secret]" {
		t.Errorf("shown is %s", w.shown())
	}
	w.now = w.now.Add(firstPause - 1)
	fails(next, "")
	w.now = w.now.Add(1)
	fails(next, "bbbbbbbb bbbbbbbb x")
	w.now = w.now.Add(2*firstPause - 1)
	fails(next, "")
	w.now = w.now.Add(1)
	fails(next, "bbbbbbbb bbbbbbbb x")
	// A clock that is set back must not make the pause last for years.
	w.now = w.now.Add(-time.Hour * 24 * 365)
	fails(next, "bbbbbbbb bbbbbbbb x")
	// Another configuration does not wait, and keys that no hook has seen yet stay.
	fails(w.config("c", "y=1", "x=2", "secret=hush-hush"), "cccccccc cccccccc x y")
	if v, err := Read(w.Dir); err != nil || v.Applied != rev("a") || v.Error != "hook 60-app: cannot use (secret)" {
		t.Errorf("%+v, %v", v, err)
	}
	// Back to what was applied: hooks saw another one meanwhile.
	fails(w.config("a", "x=1", "secret=hush-hush"), "aaaaaaaa aaaaaaaa x y")
	w.hook("60-app", "exit 0")
	w.start()
	w.mustApply(w.config("a", "x=1", "secret=hush-hush"))
	if got := w.noted(); got != "aaaaaaaa aaaaaaaa x y" {
		t.Errorf("hooks were given %q", got)
	}
	if v, err := Read(w.Dir); err != nil || v.Applied != rev("a") || v.Error != "" {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestHide(t *testing.T) {
	v := View{Values: map[string]any{"a": "correct horse", "b": "abc", "c": "line one\nline two\n"}, Secrets: []string{"a", "b", "c", "gone"}}
	for text, want := range map[string]string{
		"no correct horse here":          "no (secret) here",
		"rect horse was cut off":         "(secret) was cut off",
		"at line two":                    "at (secret)",
		"abc is in many words":           "abc is in many words",
		"correct horse or correct horse": "(secret) or (secret)",
	} {
		if got := v.hide(text); got != want {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func TestSlowHook(t *testing.T) {
	w := newWorld(t)
	w.hook("60-app", "sleep 1000 & sleep 1000")
	w.Limit = 2 * time.Second
	if got, err := w.Apply(t.Context(), device, w.config("a", "x=1")); got != "" || err == nil || !strings.Contains(err.Error(), "hook 60-app: it took more than 2s") {
		t.Errorf("%q, %v", got, err)
	}
	// The updater ends while a hook runs: that is no fault of the hook.
	w = newWorld(t)
	w.hook("60-app", "sleep 1000")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := w.Apply(ctx, device, w.config("a", "x=1")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if v, err := Read(w.Dir); err != nil || v.Error != "" {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestAnotherDeployment: what its hooks wrote into /etc is of another time.
func TestAnotherDeployment(t *testing.T) {
	w := newWorld(t)
	w.mustApply(w.config("a", "x=1", "y=2"))
	w.noted()
	w.boot = "2"
	w.start()
	w.hook("60-app", "echo not yet; exit 1")
	if got, err := w.Resume(t.Context()); got != "" || err == nil || w.noted() != "aaaaaaaa aaaaaaaa x y" {
		t.Errorf("%q, %v", got, err)
	}
	w.boot = "1"
	w.hook("60-app", "exit 0")
	w.start()
	if got, err := w.Resume(t.Context()); got != rev("a") || err != nil || w.noted() != "aaaaaaaa aaaaaaaa x y" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestNobodySeesTwoRevisions: whoever resolves the link once reads files of one
// revision.
func TestNobodySeesTwoRevisions(t *testing.T) {
	w := newWorld(t)
	if err := os.RemoveAll(w.hooks); err != nil {
		t.Fatal(err)
	}
	w.mustApply(w.config("0", "n=0"))
	done, reads := make(chan struct{}), 0
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			root, err := os.OpenRoot(filepath.Join(w.Dir, "current"))
			if err != nil {
				t.Error(err)
				return
			}
			text, errText := root.ReadFile("config.json")
			env, errEnv := root.ReadFile("config.env")
			revision, _ := os.Readlink(filepath.Join(w.Dir, "current"))
			_ = root.Close()
			if errText != nil || errEnv != nil {
				continue // two revisions passed meanwhile, and its directory went
			}
			reads++
			n := strings.Split(string(text), `"`)[3]
			if !strings.Contains(string(env), "N=\""+n+"\"\n") {
				t.Errorf("%s: %s and %s", revision, text, env)
				return
			}
			if v, err := Read(w.Dir); err != nil || len(v.Values) != 1 {
				t.Errorf("%+v, %v", v, err)
			}
		}
	})
	for i := range 200 {
		c := w.config("0", fmt.Sprintf("n=%d", i))
		c.Revision = fmt.Sprintf("%08x", i+1)
		w.mustApply(c)
	}
	close(done)
	wait.Wait()
	if reads < 20 {
		t.Errorf("only %d reads beside 200 changes", reads)
	}
}

// TestDamage: what somebody broke is made again.
func TestDamage(t *testing.T) {
	for name, harm := range map[string]func(dir string) error{
		"json": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "current/config.json"), []byte("{"), 0o600)
		},
		"no json":  func(dir string) error { return os.Remove(filepath.Join(dir, "current/config.json")) },
		"link":     func(dir string) error { return os.Remove(filepath.Join(dir, "current")) },
		"revision": func(dir string) error { return os.RemoveAll(filepath.Join(dir, rev("a"))) },
		"status":   func(dir string) error { return os.WriteFile(filepath.Join(dir, "status.json"), []byte("{"), 0o600) },
		"all":      os.RemoveAll,
	} {
		w := newWorld(t)
		c := w.config("a", "x=1")
		w.mustApply(c)
		if err := harm(w.Dir); err != nil {
			t.Fatal(err)
		}
		w.start()
		w.mustApply(c)
		if got := w.shown(); got != "aaaaaaaa map[x:1] []" {
			t.Errorf("%s: shown is %s", name, got)
		}
	}
}

// TestWhatWasNotedAndIsGone: the power failed before a revision was shown, and
// somebody removed it.
func TestWhatWasNotedAndIsGone(t *testing.T) {
	w := newWorld(t)
	w.mustApply(w.config("a", "x=1"))
	next := w.config("b", "x=2")
	if steps, _ := w.cutAfter(2, next); steps[1] != "keep the status" {
		t.Fatalf("%q", steps)
	}
	if err := os.RemoveAll(filepath.Join(w.Dir, rev("b"))); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.noted()
	if got, err := w.Resume(t.Context()); got != rev("a") || err == nil {
		t.Errorf("%q, %v", got, err)
	}
	w.mustApply(next)
	if got := w.noted(); got != "bbbbbbbb bbbbbbbb x" {
		t.Errorf("hooks were given %q", got)
	}
}

func TestValuesComeBack(t *testing.T) {
	w := newWorld(t)
	c := &protocol.AssignedConfig{Revision: rev("a"), Values: map[string]any{"t": "<&>\u2028", "n": 0.1, "big": float64(1<<53 - 1), "b": true, "empty": ""}}
	w.mustApply(c)
	v, err := Read(w.Dir)
	if err != nil || !reflect.DeepEqual(v.Values, c.Values) {
		t.Errorf("%v, %v", v.Values, err)
	}
	if got := slices.Sorted(maps.Keys(v.Values)); len(got) != 5 || Text(v.Values["big"]) != "9007199254740991" {
		t.Errorf("%v", got)
	}
}
