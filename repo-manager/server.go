package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"aptfleet/internal/atomicfile"
	"aptfleet/internal/deb"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/api"
	"aptfleet/repo-manager/internal/backup"
	"aptfleet/repo-manager/internal/blobs"
	"aptfleet/repo-manager/internal/certificate"
	"aptfleet/repo-manager/internal/configuration"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/incoming"
	"aptfleet/repo-manager/internal/mirror"
	"aptfleet/repo-manager/internal/pool"
	"aptfleet/repo-manager/internal/product"
	"aptfleet/repo-manager/internal/publish"
	"aptfleet/repo-manager/internal/reading"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/repo-manager/internal/sqlite"
	"aptfleet/repo-manager/internal/ui"
)

const databaseFile = "repo-manager.db"

// system is the actor of what the server does by itself.
var system = release.Actor{Name: "system", Via: "system"}

// server is one running repo-manager: it owns a data directory and its
// listeners. Tests run it in-process with addresses on port 0.
type server struct {
	settings settings
	log      *slog.Logger
	say      func(format string, args ...any) // to the person who started it
	clock    func() time.Time

	key           archiveKey
	fleetKeys     fleetKeys
	authority     *certificate.Authority // the server's own CA, or nil
	certificate   *certificate.Keeper    // nil without TLS
	engine        *release.Engine
	fleet         *fleet.Service
	configuration *configuration.Service
	products      *product.Service
	access        *access.Service
	receiver      *incoming.Receiver
	mirrors       *mirror.Updater
	backups       *backup.Service
	archive       *archiveHandler
	listeners     listeners
	closers       []func() error // in the order of opening
}

// lockedError says that another server works on the data directory.
type lockedError struct{ dir string }

func (e *lockedError) Error() string {
	return "cannot open data directory " + e.dir + ": another repo-manager serves it"
}

// ExitCode is that of "locked" (11).
func (e *lockedError) ExitCode() int { return term.ExitLocked }

// openServer makes or opens the data directory, publishes what a crash left
// unpublished, and opens the listeners. After an error nothing is left open.
func openServer(ctx context.Context, settings settings, log *slog.Logger, say func(format string, args ...any)) (*server, error) {
	data, err := filepath.Abs(settings.Data)
	if err != nil {
		return nil, fmt.Errorf("cannot find data directory: %w", err)
	}
	settings.Data = data
	s := &server{settings: settings, log: log, say: say, clock: time.Now}
	for _, open := range []func(context.Context) error{s.openDirectory, s.openStores, s.welcomeRepositories} {
		if err := open(ctx); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	return s, nil
}

// path is a file of the data directory.
func (s *server) path(name string) string { return filepath.Join(s.settings.Data, name) }

// opened remembers what close has to close.
func (s *server) opened(closer func() error) { s.closers = append(s.closers, closer) }

// close closes everything, last opened first.
func (s *server) close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.closers = nil
	return errors.Join(errs...)
}

// openDirectory makes the data directory ours alone.
func (s *server) openDirectory(ctx context.Context) error {
	if err := os.MkdirAll(s.settings.Data, 0o755); err != nil {
		return fmt.Errorf("cannot open data directory: %w", err)
	}
	if err := ensureEmptyOrOurs(s.settings.Data); err != nil {
		return err
	}
	if err := s.lock(ctx); err != nil {
		return err
	}
	// A server that was killed could not remove its addresses.
	if err := s.removeAddresses(); err != nil {
		return fmt.Errorf("cannot open data directory: %w", err)
	}
	for dir, mode := range map[string]fs.FileMode{"public": 0o755, "run": 0o755, "incoming": 0o700, "mirrors": 0o700, "blobs": 0o700} {
		if err := os.MkdirAll(s.path(dir), mode); err != nil {
			return fmt.Errorf("cannot open data directory: %w", err)
		}
	}
	// Files that a killed server was about to rename.
	for _, pattern := range []string{"keys", "public", "public/*/boms", "run", "mirrors/*/*"} {
		dirs, err := fs.Glob(os.DirFS(s.settings.Data), pattern)
		for _, dir := range dirs {
			err = errors.Join(err, atomicfile.Sweep(s.path(dir), nil))
		}
		if err != nil {
			return fmt.Errorf("cannot open data directory: %w", err)
		}
	}
	return nil
}

// lock holds off every other process from a data directory that is complete.
func (s *server) lock(ctx context.Context) error {
	lock, err := os.OpenFile(s.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open data directory: %w", err)
	}
	s.opened(lock.Close)
	switch err := lockFile(ctx, lock); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return term.WithHint(&lockedError{s.settings.Data}, "stop the other one first, or name another directory with --data")
	case err != nil:
		return fmt.Errorf("cannot lock data directory: %w", err)
	}
	return mustBeFinished(s.settings.Data)
}

// lockPatience is how long a server waits for the one before it: the kernel
// takes a moment to close what a killed process had open.
const lockPatience = 2 * time.Second

// lockFile locks a file, or fails with EWOULDBLOCK.
func lockFile(ctx context.Context, file *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// openStores opens everything that lives in the data directory. The
// listeners come before the engine: its Release files say where they are.
func (s *server) openStores(ctx context.Context) (err error) {
	_, err = os.Stat(s.path(databaseFile))
	isNew := errors.Is(err, fs.ErrNotExist)
	if s.key, err = openKey(s.settings.Data, isNew, s.clock()); err != nil {
		return err
	}
	if err := s.openAuthority(); err != nil {
		return err
	}
	if err := touch(s.path(databaseFile)); err != nil {
		return err
	}
	db, err := sqlite.Open(ctx, s.path(databaseFile))
	if sqlite.IsDamaged(err) {
		return term.WithHint(err, "restore it from a backup; until then public/ can be served as it is, by any web server")
	}
	if err != nil {
		return err
	}
	s.opened(db.Close)
	store, err := blobs.Open(s.path("blobs"))
	if err != nil {
		return err
	}
	files, err := pool.New(s.path("public"))
	if err != nil {
		return err
	}
	publisher, err := publish.New(publish.Config{
		Public: s.path("public"), Blobs: store, Signer: s.key, Now: s.clock, Keep: s.settings.KeepSuperseded, Budget: s.settings.SupersededMax,
	})
	if err != nil {
		return err
	}
	if err := s.publishPublicFiles(); err != nil {
		return err
	}
	if s.receiver, err = incoming.Open(s.path("incoming"), s.settings.MaxUpload, s.settings.Reserve); err != nil {
		return err
	}
	if s.archive, err = openArchive(s.path("public")); err != nil {
		return err
	}
	s.opened(s.archive.Close)
	if err := s.listen(); err != nil {
		return err
	}
	if err := s.openCertificate(); err != nil {
		return err
	}
	s.engine, err = release.Open(ctx, release.Config{
		Store: db, Chunks: store, Blobs: store, Pool: files, Publisher: publisher,
		Sync:    func() error { return atomicfile.SyncFS(s.settings.Data) },
		Intents: s.path("intents"), Database: databaseFile, Aside: s.path("damaged"), Files: s.publicFiles(), Archive: s.listeners.archiveURL, ValidFor: s.settings.ValidFor,
		Keep: s.settings.KeepSuperseded, IndexBudget: s.settings.IndexMax, Devices: s.deployed, Bills: bills{s},
		Clock: s.clock, Log: s.log,
	})
	if err != nil {
		return err
	}
	s.opened(s.engine.Close)
	s.access = access.New(db, s.clock)
	s.opened(func() error {
		s.storeUse(context.Background())
		return nil
	})
	s.mirrors = mirror.New(mirror.Config{
		Engine: s.engine, Chunks: store, Pool: settledPool{files, db}, Dir: s.path("mirrors"), Clock: s.clock,
		Reserve: cmp.Or(s.settings.Reserve, incoming.DefaultReserve),
	})
	s.backups = backup.New(backup.Config{
		Engine: s.engine, Source: s.backupSource(db, store), Log: s.log,
		Dir: s.settings.Backup.Dir, Every: s.settings.Backup.Every, Keep: s.settings.Backup.Keep,
	})
	if err := s.openProducts(ctx, db, store, files); err != nil {
		return err
	}
	if err := s.openFleet(ctx, db); err != nil {
		return err
	}
	if err := s.openConfiguration(ctx, db); err != nil {
		return err
	}
	s.archive.gate = reading.New(reading.Config{
		Releases: s.engine, Tokens: s.access, Devices: s.fleet, Clock: s.clock, Log: s.log,
	})
	return nil
}

// settledPool is what of the pool is on record. A file that is not may have
// been damaged by a power cut, or be taken back in a moment.
type settledPool struct {
	*pool.Pool
	record interface {
		HasFile(ctx context.Context, sha256 [32]byte) (bool, error)
	}
}

// Has reports whether a file is in the pool to stay. What cannot be told is
// downloaded again.
func (p settledPool) Has(sha256 [32]byte, name string) bool {
	known, err := p.record.HasFile(context.Background(), sha256)
	return err == nil && known && p.Pool.Has(sha256, name)
}

// touch creates a file that only its owner reads.
func touch(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("cannot create database: %w", err)
	}
	return file.Close()
}

// describe is the server as its API describes it.
func (s *server) describe() protocol.System {
	return protocol.System{
		Product: "aptfleet", Version: term.Version(), Fingerprint: s.key.Fingerprint(), AssignmentKey: protocol.KeyID(s.fleetKeys.assignment.Public().(ed25519.PublicKey)),
		Archive: s.listeners.addresses.Public, Admin: s.listeners.addresses.Admin,
	}
}

// releases is the engine as the API sees it: the first repository of a
// pipeline receives the keyring package, and a mirror can be updated.
type releases struct {
	*release.Engine
	welcome func(ctx context.Context, pipeline string) error
}

// CreateRepository is that of the engine.
func (r releases) CreateRepository(ctx context.Context, a release.Actor, pipeline, name string, keep int) (release.Component, error) {
	c, err := r.Engine.CreateRepository(ctx, a, pipeline, name, keep)
	if err != nil {
		return c, err
	}
	return c, r.welcome(ctx, pipeline)
}

// CreateMirror is that of the engine, for mirrors that can be updated.
func (r releases) CreateMirror(ctx context.Context, a release.Actor, pipeline, name string, config release.MirrorConfig) (release.Component, error) {
	if err := mirror.Validate("create", name, config); err != nil {
		return release.Component{}, err
	}
	return r.Engine.CreateMirror(ctx, a, pipeline, name, config)
}

// SetMirror is that of the engine, for mirrors that can be updated.
func (r releases) SetMirror(ctx context.Context, a release.Actor, pipeline, name string, config release.MirrorConfig, dryRun bool) (release.Component, error) {
	if err := mirror.Validate("change", name, config); err != nil {
		return release.Component{}, err
	}
	return r.Engine.SetMirror(ctx, a, pipeline, name, config, dryRun)
}

// welcomeRepositories repeats what a crash between the creation of a
// repository and its first package left out.
func (s *server) welcomeRepositories(ctx context.Context) error {
	pipelines, err := s.engine.Pipelines(ctx)
	if err != nil {
		return err
	}
	for _, p := range pipelines {
		if err := s.welcome(ctx, p.Name); err != nil {
			return err
		}
	}
	return nil
}

// welcome uploads the keyring package into the first repository of a
// pipeline, unless it has been in one of them before.
func (s *server) welcome(ctx context.Context, pipeline string) error {
	p, err := s.engine.Pipeline(ctx, pipeline)
	if err != nil {
		return err
	}
	var first *release.Component
	for i, c := range p.Components {
		if c.Kind == release.Repository && (first == nil || c.Created.Before(first.Created)) {
			first = &p.Components[i]
		}
	}
	if first == nil {
		return nil
	}
	content, err := deb.Read(bytes.NewReader(s.key.deb), deb.Limits{})
	if err != nil {
		return fmt.Errorf("cannot read the keyring package: %w", err)
	}
	known, err := s.engine.Knows(ctx, pipeline, content.Name, content.Version, content.Architecture)
	if err != nil || known {
		return err
	}
	in, err := s.receiver.Receive(ctx, bytes.NewReader(s.key.deb), deb.FileName(content.Name, content.Version, content.Architecture))
	if err != nil {
		return err
	}
	_, err = s.engine.Add(ctx, system, pipeline, first.Name, in, false)
	return errors.Join(err, in.Discard())
}

// handlers wires the API and the pages to the services.
func (s *server) handlers() (handlers, error) {
	config := api.Config{
		Releases: releases{s.engine, s.welcome}, Access: s.access, Fleet: s.fleet, Configuration: s.configuration, Products: s.products, Mirrors: s.mirrors, Backups: s.backups, Receiver: s.receiver,
		System: s.describe, Certificate: s.key.certificate,
		LoginURL:  func(secret string) string { return s.listeners.addresses.Admin + "/login?token=" + secret },
		MaxUpload: s.settings.MaxUpload, Log: s.log,
	}
	if s.authority != nil {
		config.CA, config.CAFingerprint = string(s.authority.PEM()), s.authority.Fingerprint()
	}
	proxies, err := s.settings.proxies()
	if err != nil {
		return handlers{}, err
	}
	pages, err := ui.New(ui.Config{
		Release: s.engine, Access: s.access, Fleet: s.fleet, Products: s.products, Configuration: s.configuration, Clock: s.clock, Log: s.log,
		Secure: s.settings.adminTLS() || strings.HasPrefix(s.settings.URLAdmin, "https:"),
	})
	if err != nil {
		return handlers{}, fmt.Errorf("cannot make the pages: %w", err)
	}
	return newHandlers(s.archive, api.NewDevice(config), api.New(config), pages, s.settings.adminHosts(), proxies), nil
}

// run serves until ctx ends or a listener fails, then finishes what is under
// way and closes everything.
func (s *server) run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.close()) }()
	h, err := s.handlers()
	if err != nil {
		return err
	}
	public, admin := s.tlsConfigs()
	failed := s.listeners.serve(h, public, admin, s.log)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if s.certificate != nil {
		go s.certificate.Run(ctx)
	}
	go s.collectGarbage(ctx)
	go s.flushUse(ctx)
	s.introduce()
	if err := s.writeAddresses(); err != nil {
		return errors.Join(err, s.listeners.shutdown(s.engine.EndEvents))
	}
	go s.backups.Run(ctx)
	select {
	case <-ctx.Done():
		s.say("stopping")
	case err = <-failed:
	}
	return errors.Join(err, s.removeAddresses(), s.listeners.shutdown(s.engine.EndEvents))
}

func (s *server) addressesFile() string { return filepath.Join(s.path("run"), "addresses.json") }

// writeAddresses tells programs that the server answers, and where.
func (s *server) writeAddresses() error {
	text, err := json.MarshalIndent(s.listeners.addresses, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(s.addressesFile(), append(text, '\n'), 0o644)
}

// removeAddresses tells programs that the server no longer answers.
func (s *server) removeAddresses() error {
	if err := os.Remove(s.addressesFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// introduce tells a person where everything is.
func (s *server) introduce() {
	if s.key.made {
		s.say("A new archive was made in %s.", s.settings.Data)
		s.say("Its key %s lies in %s. Back it up now, and keep the copy offline:", s.key.Fingerprint(), s.key.path)
		s.say("  install -m 0600 %s /PATH/TO/YOUR/BACKUP/", s.key.path)
		s.say("Without it no device can be updated from this archive any more; whoever has it can sign in its name.")
	}
	if s.authority != nil {
		if s.authority.Made() {
			s.say("A certificate authority was made for TLS; its key %s belongs into the same backup.", filepath.Join(s.path("keys"), certificate.KeyFile))
		}
		s.say("CA      %s/%s  (SHA-256 %s)", s.listeners.addresses.Public, caFile, s.authority.Fingerprint())
	}
	if s.fleetKeys.made {
		s.say("The key that devices obey is %s; copy it along, with read.secret and config.key beside it.", s.path(filepath.Join("keys", assignmentKeyFile)))
	}
	s.say("archive %s  (keyring: %s/archive-keyring.asc)", s.listeners.addresses.Public, s.listeners.addresses.Public)
	if s.listeners.plain != nil {
		s.say("        http://%s without TLS, for public pipelines", reachable(s.listeners.plain.Addr()))
	}
	program := "repo-manager"
	if s.settings.Data != defaultData {
		program += " --data " + s.settings.Data
	}
	s.say("admin   %s  (sign in: %s user create NAME --role admin; %s login-link NAME)", s.listeners.addresses.Admin, program, program)
	s.say("socket  %s", s.listeners.addresses.Socket)
	if s.listeners.archiveURL == "" {
		s.say("Without --url, Release files do not say where apt finds a pipeline's snapshots: nobody knows how others reach %s.", s.settings.Listen)
	}
}
