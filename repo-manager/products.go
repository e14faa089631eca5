package main

import (
	"context"
	"io"
	"os"
	"strings"

	"aptfleet/repo-manager/internal/pool"
	"aptfleet/repo-manager/internal/product"
	"aptfleet/repo-manager/internal/sqlite"
	"aptfleet/snapshots"
)

// openProducts opens the products and starts to compute what is asked for.
func (s *server) openProducts(ctx context.Context, db *sqlite.DB, chunks snapshots.Chunks, files *pool.Pool) (err error) {
	s.products, err = product.Open(ctx, product.Config{
		Store: db, Chunks: chunks, Pipeline: s.engine.Pipeline, Dir: s.path("solve"), Public: s.path("public"),
		States:   func(ctx context.Context, pipeline string) ([]snapshots.ID, error) { return states(ctx, db, pipeline) },
		Package:  func(sha256 [32]byte, name string) (io.ReadCloser, error) { return os.Open(files.Path(sha256, name)) },
		InUse:    func(pipeline, product string) int { return s.fleet.Of(pipeline, product) },
		Announce: s.engine.Announce, Clock: s.clock, Log: s.log,
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.products.Run(ctx)
	}()
	s.opened(func() error {
		stop()
		<-done
		return nil
	})
	return nil
}

// states lists the states that a pipeline keeps.
func states(ctx context.Context, db *sqlite.DB, pipeline string) ([]snapshots.ID, error) {
	bases, err := db.BaseStates(ctx, pipeline)
	if err != nil {
		return nil, err
	}
	var ids []snapshots.ID
	for _, b := range bases {
		if strings.HasPrefix(b.Dir, "states/") {
			ids = append(ids, b.State)
		}
	}
	return ids, nil
}

// bills are the products as the engine sees them. It is made before they are.
type bills struct{ *server }

// Files implements release.Bills.
func (b bills) Files() map[string][32]byte { return b.products.Files() }

// Restore implements release.Bills.
func (b bills) Restore(ctx context.Context) ([]string, error) { return b.products.Restore(ctx) }

// Forget implements release.Bills.
func (b bills) Forget(ctx context.Context) error { return b.products.Forget(ctx) }
