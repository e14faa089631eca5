// Command builder makes Debian packages from manifests and uploads them.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"aptfleet/internal/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, term.System(os.Getenv), os.LookupEnv, os.Args[1:])
	stop()
	os.Exit(code)
}
