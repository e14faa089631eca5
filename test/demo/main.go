// The demo program behind `make run`: the whole pipeline on one machine. It
// starts repo-manager, fills it with a small product, boots a virtual device
// that enrols and follows production, lets it commit version 2, and leaves version 3 one
// promotion away.
//
// test/demo/run.sh starts it in mount and process namespaces of its own, so
// that nothing it mounts or starts can outlive it. Every step looks first
// whether it was done before; a second run starts from where the first
// stopped.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	source := flag.String("source", ".", "the Aptfleet source tree whose examples are built")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	d := &demo{
		source: *source,
		dir:    os.Getenv("DEMO_DIR"),
		listen: os.Getenv("LISTEN"),
		public: os.Getenv("PUBLIC"),
		device: os.Getenv("DEVICE") != "none",
		say:    newSayer(os.Stderr),
	}
	if d.dir == "" {
		fmt.Fprintln(os.Stderr, "make run: DEMO_DIR is not set: start it with test/demo/run.sh")
		os.Exit(2)
	}
	err := d.run(ctx, os.Getenv("FRESH") != "")
	switch {
	case ctx.Err() != nil:
		d.say.done("stopped; `make run` goes on from here, `make purge` removes everything")
		if !d.ready {
			os.Exit(130)
		}
	case err != nil:
		fmt.Fprintf(os.Stderr, "make run: %v\n", err)
		var hint interface{ NextStep() string }
		if errors.As(err, &hint) && hint.NextStep() != "" {
			fmt.Fprintf(os.Stderr, "  next: %s\n", hint.NextStep())
		}
		fmt.Fprintf(os.Stderr, "  logs: %s\n", filepath.Join(d.dir, "log"))
		os.Exit(1)
	}
}

// demo is one run. dir holds everything: the programs, the server's data, the
// device's disk, downloads and logs.
type demo struct {
	source string
	dir    string
	listen string // address of the page, "" for a free port
	public string // address of the archive, "" for a free port of the loopback
	device bool
	say    *sayer

	server *server
	ready  bool // everything is up and the visitor was told
}

// run brings everything up and stays until the context ends.
func (d *demo) run(ctx context.Context, fresh bool) error {
	if fresh {
		if err := d.forget(); err != nil {
			return err
		}
	}
	if err := d.settle(); err != nil {
		return err
	}
	// What a run that was killed left half-made.
	if err := os.RemoveAll(filepath.Join(d.dir, "tmp")); err != nil {
		return fmt.Errorf("cannot prepare %s: %w", d.dir, err)
	}
	for _, dir := range []string{"log", "packages", "cache", "tmp"} {
		if err := os.MkdirAll(filepath.Join(d.dir, dir), 0o755); err != nil {
			return fmt.Errorf("cannot prepare %s: %w", d.dir, err)
		}
	}
	// What the visitor's shell says of a server is about another one, or an
	// earlier run.
	for _, name := range []string{"SERVER", "TOKEN", "CA", "SOCKET", "DATA", "PIPELINE"} {
		if err := os.Unsetenv("APTFLEET_" + name); err != nil {
			return err
		}
	}
	// What other programs keep belongs below the one directory, too.
	for name, dir := range map[string]string{"APTFLEET_CACHE": "cache", "TMPDIR": "tmp"} {
		if err := os.Setenv(name, filepath.Join(d.dir, dir)); err != nil {
			return err
		}
	}

	srv, err := startServer(ctx, d)
	if err != nil {
		return err
	}
	d.server = srv
	defer srv.stop()
	link, err := d.signIn(ctx)
	if err != nil {
		return err
	}
	d.say.note("the page is up: " + link)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { cancel(srv.wait()) }()
	err = d.fill(ctx, link)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// forget removes what a former run made, but for downloads and programs.
func (d *demo) forget() error {
	for _, name := range []string{"world.json", "server", "device", "packages", "log", "env", "token"} {
		if err := os.RemoveAll(filepath.Join(d.dir, name)); err != nil {
			return fmt.Errorf("cannot start afresh: %w", err)
		}
	}
	return nil
}
