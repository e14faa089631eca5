package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"aptfleet/internal/manual"
	"aptfleet/internal/term"
)

// program is what every command is given: the terminal and the environment.
type program struct {
	io  *term.IO
	env func(string) (string, bool)
}

// getenv returns a variable of the environment, "" if it is not set.
func (p *program) getenv(name string) string {
	value, _ := p.env(name)
	return value
}

// run carries one command line out and returns its exit status.
func run(ctx context.Context, io *term.IO, env func(string) (string, bool), args []string) int {
	p := &program{io: io, env: env}
	root := p.root()
	root.SetArgs(args)
	root.SetOut(io.Out)
	root.SetErr(io.Err)
	return io.Fail("builder", root.ExecuteContext(ctx))
}

// root returns the command tree, which the manual pages are made of too.
func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "builder",
		Short: "Build Debian packages and upload them",
		Long: `builder turns a source directory with a manifest (aptfleet.yaml, with the field
names of nfpm) into a Debian package, shows what a package holds, and uploads
packages to a rolling repository of repo-manager.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused by the server's
policy, 5 not authorised, 11 locked by another change, 130 interrupted.`,
		Example: `  builder build && builder upload hello_*.deb --to apps
  builder show hello_1.2.3_amd64.deb`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return &term.UsageError{Text: "cannot run builder: a command is missing", Hint: "builder --help lists the commands"}
		},
		Version:       term.Version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate(term.VersionTemplate)
	root.PersistentFlags().BoolVar(&p.io.JSON, "json", p.io.JSON, "print one JSON value; errors too, on standard error")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &term.UsageError{Text: "cannot read the command line: " + err.Error(), Hint: cmd.CommandPath() + " --help shows its flags"}
	})
	root.AddCommand(p.buildCommand(), p.showCommand(), p.uploadCommand(), p.imageCommand(), manual.Command())
	return root
}

// usage makes a wrong number of arguments, or an unknown command, a usage
// error.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			text, _, _ := strings.Cut(err.Error(), "\n")
			return &term.UsageError{Text: "cannot read the command line: " + text, Hint: cmd.CommandPath() + " --help shows how it is used"}
		}
		return nil
	}
}
