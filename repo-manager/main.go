// Command repo-manager keeps Debian packages in rolling repositories, names
// what they hold, and moves stages from one snapshot to another.
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
	code := execute(ctx, term.System(os.Getenv), os.Args[1:])
	stop()
	os.Exit(code)
}
