// Command device-updater moves a device from one release to the next, and back
// if the next one is not healthy.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"aptfleet/device-updater/internal/sandbox"
	"aptfleet/internal/term"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == sandbox.Argument {
		os.Exit(sandbox.Main())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, term.System(os.Getenv), os.Args[1:])
	stop()
	os.Exit(code)
}
