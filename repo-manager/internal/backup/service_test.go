package backup

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"aptfleet/repo-manager/internal/release"
)

// fakeEngine notes which changes were started and runs none.
type fakeEngine struct{ started []release.Change }

func (e *fakeEngine) StartChange(_ context.Context, _ release.Actor, c release.Change, _ func(context.Context, *release.Progress) error) (release.Change, error) {
	e.started = append(e.started, c)
	return c, nil
}
func (e *fakeEngine) Record(context.Context, release.Actor, string, string, string) error { return nil }

func TestWhereBackupsMayGo(t *testing.T) {
	root := t.TempDir()
	data := filepath.Join(root, "data")
	for _, dir := range []string{data + "/public", root + "/mine", root + "/full"} {
		must(t, os.MkdirAll(dir, 0o755))
	}
	must(t, os.WriteFile(root+"/full/x", nil, 0o600))
	must(t, os.Symlink(data, root+"/link"))
	for name, c := range map[string]struct {
		setting string
		order   Order
		want    string // "" is refused
		code    release.Code
	}{
		"anywhere on the machine":          {"", Order{Dir: root + "/new", Local: true}, root + "/new", ""},
		"below what is not there":          {"", Order{Dir: root + "/a/b/c", Local: true}, root + "/a/b/c", ""},
		"the setting":                      {root + "/mine", Order{Local: true}, root + "/mine", ""},
		"the setting, over the network":    {root + "/mine", Order{}, root + "/mine", ""},
		"its name, over the network":       {root + "/mine", Order{Dir: root + "/mine/"}, root + "/mine", ""},
		"elsewhere, over the network":      {root + "/mine", Order{Dir: root + "/new"}, "", release.Refused},
		"a way out, over the network":      {root + "/mine", Order{Dir: root + "/mine/../new"}, "", release.Refused},
		"anywhere, over the network":       {"", Order{Dir: root + "/new"}, "", release.Refused},
		"nowhere":                          {"", Order{Local: true}, "", release.Refused},
		"a relative path":                  {"", Order{Dir: "backup", Local: true}, "", release.Invalid},
		"the data directory":               {"", Order{Dir: data, Local: true}, "", release.Refused},
		"inside the data directory":        {"", Order{Dir: data + "/public/x", Local: true}, "", release.Refused},
		"inside, by a link":                {"", Order{Dir: root + "/link/public/x", Local: true}, "", release.Refused},
		"around the data directory":        {"", Order{Dir: root, Local: true}, "", release.Refused},
		"a directory with somebody's file": {"", Order{Dir: root + "/full", Local: true}, "", release.Refused},
	} {
		engine := new(fakeEngine)
		s := New(Config{Engine: engine, Source: Source{Data: data}, Dir: c.setting})
		change, err := s.Start(t.Context(), release.Actor{Name: "ann"}, c.order)
		if change.Subject != c.want || release.CodeOf(err) != c.code {
			t.Errorf("%s: %q, %v; want %q", name, change.Subject, err, c.want)
		}
	}
}

// The server makes backups by itself, and counts from the newest one there.
func TestAutomaticBackups(t *testing.T) {
	w := newWorld(t)
	w.clock = time.Now()
	w.make()
	synctest.Test(t, func(t *testing.T) {
		engine := new(fakeEngine)
		source := w.source()
		source.Clock = time.Now // that of the bubble, which begins long before the backup there
		s := New(Config{Engine: engine, Source: source, Dir: w.dir, Every: time.Hour, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Hour)
		defer cancel()
		s.Run(ctx)
		if len(engine.started) != 0 {
			t.Errorf("a new enough backup was repeated %d times", len(engine.started))
		}
		s.config.Dir = filepath.Join(t.TempDir(), "none yet")
		ctx, cancel = context.WithTimeout(t.Context(), 150*time.Minute)
		defer cancel()
		s.Run(ctx)
		if len(engine.started) != 3 {
			t.Errorf("%d backups in 2.5 hours, want 3", len(engine.started))
		}
		s.config.Every = 0
		s.Run(t.Context()) // returns
	})
}
