package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"aptfleet/internal/term"
	"aptfleet/repo-manager/internal/release"
)

// Engine is what backups need of the release engine.
type Engine interface {
	// StartChange runs a backup as a change of the server.
	StartChange(ctx context.Context, actor release.Actor, change release.Change, run func(context.Context, *release.Progress) error) (release.Change, error)
	// Record adds a line to the audit trail.
	Record(ctx context.Context, actor release.Actor, verb, object, detail string) error
}

// Config is what a Service works with.
type Config struct {
	Engine Engine
	Source Source
	Dir    string        // where backups go that name no directory, "" for nowhere
	Every  time.Duration // between two backups that the server makes by itself; 0: none
	Keep   int           // how many of them stay; 0: all
	Log    *slog.Logger
}

// Service makes backups of a running server.
type Service struct{ config Config }

// New returns a Service. It touches nothing.
func New(config Config) *Service { return &Service{config} }

// Order is a backup that somebody asks for.
type Order struct {
	Dir         string // absolute path; "" is the directory of the settings
	WithoutKeys bool
	Local       bool // asked through the Unix socket
}

// Start starts a backup and returns the change that makes it. Only through the
// Unix socket may it go anywhere but to the directory of the settings: whoever
// steals a token shall not carry the archive key away, nor write where the
// server can.
func (s *Service) Start(ctx context.Context, actor release.Actor, order Order) (release.Change, error) {
	dir, err := s.place(order)
	if err != nil {
		return release.Change{}, err
	}
	return s.start(ctx, actor, dir, order.WithoutKeys, 0)
}

// start starts a backup after which keep stay, if that is not 0.
func (s *Service) start(ctx context.Context, actor release.Actor, dir string, withoutKeys bool, keep int) (release.Change, error) {
	change := release.Change{Kind: release.KindBackup, Subject: dir, Summary: "back up to " + dir}
	return s.config.Engine.StartChange(ctx, actor, change, func(ctx context.Context, progress *release.Progress) error {
		if err := s.config.Engine.Record(ctx, actor, "back up", "server", "to "+dir); err != nil {
			return err
		}
		r := Request{Dir: dir, WithoutKeys: withoutKeys, By: actor.Name, Change: progress.Change().ID}
		made, err := Make(ctx, s.config.Source, r, progress)
		if err != nil {
			s.config.Log.Error("a backup failed", "dir", dir, "error", err)
			return err
		}
		made.Tell(progress)
		if err := made.Complete(); err != nil {
			return err
		}
		return prune(ctx, dir, keep, progress)
	})
}

// prune removes what is older than the newest keep backups; 0 keeps all.
func prune(ctx context.Context, dir string, keep int, progress Progress) error {
	if keep == 0 {
		return nil
	}
	pruned, err := Prune(ctx, dir, keep, false)
	if err != nil {
		return fmt.Errorf("the backup was made, but old ones stay: %w", err)
	}
	if len(pruned.IDs) > 0 {
		progress.Logf("removed the backups %s: %d objects, %s", strings.Join(pruned.IDs, ", "), pruned.Objects, term.HumanBytes(pruned.Bytes))
	}
	return nil
}

// Tell logs what was made.
func (m Made) Tell(progress Progress) {
	progress.Logf("backup %s: %d files, %s; new: %d objects, %s", m.ID, len(m.Files), term.HumanBytes(m.Bytes()), m.NewObjects, term.HumanBytes(m.NewBytes))
	if m.Keys {
		progress.Logf("the private archive key is in it: whoever reads the backup can sign in the archive's name")
	} else {
		progress.Logf("the private archive key is not in it: a restore needs your copy of it")
	}
}

// Complete returns an error if the server lacked files that belong into the
// backup.
func (m Made) Complete() error {
	if len(m.Lost) == 0 {
		return nil
	}
	return &release.Error{
		Code: release.Conflict,
		Text: fmt.Sprintf("backup %s was made, but lacks %d files that are missing or damaged on the server: %s", m.ID, len(m.Lost), firstOf(m.Lost)),
		Hint: "repo-manager check tells more about them",
	}
}

// firstOf names the first few of many.
func firstOf(names []string) string {
	const shown = 5
	if len(names) <= shown {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), len(names)-shown)
}

// place decides where an order goes.
func (s *Service) place(order Order) (string, error) {
	refuse := func(hint, format string, args ...any) (string, error) {
		return "", &release.Error{Code: release.Refused, Text: "cannot back up: " + fmt.Sprintf(format, args...), Hint: hint}
	}
	const setting = "set backup: {dir: …} in the server's settings"
	dir := order.Dir
	switch {
	case dir == "" && s.config.Dir == "":
		return refuse("name it: repo-manager backup DIR; or "+setting, "no directory is named, and the settings have none")
	case dir == "":
		dir = s.config.Dir
	case !filepath.IsAbs(dir):
		return "", &release.Error{Code: release.Invalid, Text: fmt.Sprintf("cannot back up to %q: want an absolute path", dir)}
	}
	dir = filepath.Clean(dir)
	if !order.Local && dir != filepath.Clean(s.config.Dir) {
		return refuse("ask on the server's machine, or "+setting, "over the network a backup goes to the directory of the settings only")
	}
	if err := MustBeApart(dir, s.config.Source.Data); err != nil {
		return "", err
	}
	return dir, mustBeOurs(dir)
}

// MustBeApart refuses a backup directory inside the data directory, where it
// might even be served, and one around it.
func MustBeApart(dir, data string) error {
	dir, data = resolved(dir), resolved(data)
	if within(dir, data) || within(data, dir) {
		return &release.Error{
			Code: release.Refused,
			Text: fmt.Sprintf("cannot back up to %s: it and the data directory %s lie within each other", dir, data),
			Hint: "name a directory elsewhere, best on another disk",
		}
	}
	return nil
}

// within tells whether a path is a directory or below it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && (rel == "." || fs.ValidPath(filepath.ToSlash(rel)))
}

// resolved follows the symbolic links of what of a path exists.
func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	parent := filepath.Dir(path)
	if parent == path {
		return path
	}
	return filepath.Join(resolved(parent), filepath.Base(path))
}

// system is the actor of backups that the server makes by itself.
var system = release.Actor{Name: "system", Via: "system"}

// lookEvery bounds how long after its time an automatic backup begins: a
// clock that was set forward must not be slept through.
const lookEvery = time.Minute

// Run makes backups by itself, Config.Every apart, until ctx ends. The first
// is due when the newest one there is old enough.
func (s *Service) Run(ctx context.Context) {
	if s.config.Every == 0 || s.config.Dir == "" {
		return
	}
	var tried time.Time
	for {
		now := s.config.Source.Clock()
		if due := s.newest(tried).Add(s.config.Every); !now.Before(due) {
			tried = now
			if _, err := s.start(ctx, system, s.config.Dir, false, s.config.Keep); err != nil {
				s.config.Log.Error("cannot start the automatic backup", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(lookEvery, s.config.Every)):
		}
	}
}

// newest is when the newest backup was made, or tried if that is later.
func (s *Service) newest(tried time.Time) time.Time {
	d, err := Open(s.config.Dir)
	if err != nil {
		return tried // there is none, or somebody is at work
	}
	ids, err := d.ids()
	if err := errors.Join(err, d.Close()); err != nil || len(ids) == 0 {
		return tried
	}
	made, err := time.Parse(idFormat, ids[len(ids)-1])
	if err != nil || made.Before(tried) {
		return tried
	}
	return made
}
