package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"aptfleet/device-updater/internal/config"
	"aptfleet/internal/manual"
	"aptfleet/internal/term"
)

// program is what every command is given: the terminal and where the device
// keeps its things.
type program struct {
	io          *term.IO
	configPath  string
	sysroot     string
	bootControl string
	socket      string
}

// run carries one command line out and returns its exit status.
func run(ctx context.Context, io *term.IO, args []string) int {
	p := &program{io: io}
	root := p.root()
	root.SetArgs(args)
	root.SetOut(io.Out)
	root.SetErr(io.Err)
	return io.Fail("device-updater", root.ExecuteContext(ctx))
}

// root returns the command tree.
func (p *program) root() *cobra.Command {
	var version bool
	root := &cobra.Command{
		Use:   "device-updater",
		Short: "Update this device as a whole, and go back if that was not good",
		Long: `device-updater installs a release beside the running one, boots it on trial,
checks its health, and commits it; or the boot loader goes back.

Exit status: 0 done or nothing to do, 1 failed, 2 wrong usage, 3 refused,
4 done and a reboot is needed (with --reboot-exit-code), 11 locked by another
update, 130 interrupted.`,
		Example: `  device-updater status
  device-updater update --reboot`,
		Args: usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if version {
				_, err := fmt.Fprintf(p.io.Out, "device-updater %s\n", term.Version())
				return err
			}
			return &term.UsageError{Text: "cannot run device-updater: a command is missing", Hint: "device-updater --help lists the commands"}
		},
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	// cobra's own flag would link text/template, and with it each exported
	// method of all that is linked: three of the program's megabytes.
	root.Flags().BoolVarP(&version, "version", "v", false, "print the version")
	flags := root.PersistentFlags()
	flags.BoolVar(&p.io.JSON, "json", p.io.JSON, "print one JSON value; errors too, on standard error")
	flags.StringVar(&p.configPath, "config", config.DefaultPath, "configuration file")
	flags.StringVar(&p.sysroot, "sysroot", "/sysroot", "mounted top level of the file system with the deployments")
	flags.StringVar(&p.bootControl, "boot-control", "/boot-control", "mounted boot-control partition")
	flags.StringVar(&p.socket, "socket", "/run/aptfleet/updater.sock", "socket of the daemon")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &term.UsageError{Text: "cannot read the command line: " + err.Error(), Hint: cmd.CommandPath() + " --help shows its flags"}
	})
	for _, group := range []struct {
		title    string
		commands []*cobra.Command
	}{
		{"What it runs:", []*cobra.Command{p.statusCommand(), p.historyCommand(), p.verifyCommand(), p.firmwareCommand()}},
		{"Updates:", []*cobra.Command{p.checkCommand(), p.updateCommand(), p.cancelCommand(), p.rollbackCommand(), p.retryCommand()}},
		{"What stays as it is:", []*cobra.Command{p.holdCommand(), p.unholdCommand(), p.pinCommand(), p.unpinCommand(), p.inhibitCommand()}},
		{"Packages of your own:", []*cobra.Command{p.tryCommand(), p.developCommand(), p.rejoinCommand()}},
		{"The device and its server:", []*cobra.Command{p.daemonCommand(), p.enrolCommand(), p.identityCommand(), p.configCommand(), p.initCommand()}},
	} {
		root.AddGroup(&cobra.Group{ID: group.title, Title: group.title})
		for _, command := range group.commands {
			command.GroupID = group.title
		}
		root.AddCommand(group.commands...)
	}
	root.AddCommand(p.mountStateCommand(), p.sshKeysCommand(), p.refusePackagesCommand(), manual.Command())
	return root
}

// usage turns an error about arguments into one with the status of wrong usage.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &term.UsageError{Text: "cannot read the command line: " + err.Error(), Hint: cmd.CommandPath() + " --help"}
		}
		return nil
	}
}
