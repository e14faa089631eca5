package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"aptfleet/builder/internal/build"
	"aptfleet/builder/internal/manifest"
	"aptfleet/internal/term"
)

func (p *program) buildCommand() *cobra.Command {
	o := build.Options{Env: p.env}
	cmd := &cobra.Command{
		Use:   "build [DIR|MANIFEST]",
		Short: "Build a package from a manifest",
		Long: `build reads aptfleet.yaml of a directory (the current one by default), or the
manifest at a path such as nfpm.yaml, and writes NAME_VERSION_ARCH.deb.

The version is that of --version, else of the manifest, else of git: the
highest tag among the commit's ancestors, the number of commits since and the
hash. Such versions sort in the order of commits:

  v1.2.3                     1.2.3
  12 commits later           1.2.3+12.gabcdef0123
  with uncommitted changes   1.2.3+12.gabcdef0123+dirty.20260102030405
  v1.3.0-rc1                 1.3.0~rc1
  before the first tag       0~12.gabcdef0123

The commit is recorded in the package's field Aptfleet-Commit.

The same commit gives the same bytes wherever it is built. Files carry the time
of SOURCE_DATE_EPOCH, else of the commit. $NAME in the manifest is replaced by
an environment variable in the fields where nfpm does it.

For each systemd unit in the contents the maintainer scripts enable, start,
restart and stop it, as debhelper's would. To opt out, for all units or for
one:

  aptfleet:
    systemd:
      enable: false
      restart: false
      units: {backup.timer: {enable: true}}`,
		Example: `  builder build
  builder build examples/demo-app --output /tmp/packages
  builder build nfpm.yaml --version 2.0 --arch arm64`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Source = "."
			if len(args) == 1 {
				o.Source = args[0]
			}
			progress := p.io.NewProgress("packing", 0, "bytes")
			o.Progress = func(done, total int64) { progress.Set(done, total, "bytes") }
			result, err := build.Build(cmd.Context(), o)
			progress.Finish()
			var mistakes *manifest.Error
			if errors.As(err, &mistakes) && len(mistakes.Problems) > 1 && !p.io.JSON {
				for _, problem := range mistakes.Problems {
					p.io.Note("%s", term.Printable(problem))
				}
				return fmt.Errorf("cannot read manifest: it has %d mistakes", len(mistakes.Problems))
			}
			if err != nil {
				return err
			}
			for _, warning := range result.Warnings {
				p.io.Note("warning: %s", term.Printable(warning))
			}
			if p.io.JSON {
				return p.io.PrintJSON(result)
			}
			p.io.Say("%s", result.File)
			return nil
		},
	}
	cmd.Flags().StringVar(&o.Arch, "arch", "", "build for architecture `A` instead of the manifest's")
	cmd.Flags().StringVar(&o.Version, "version", "", "build version `V` instead of the manifest's or git's")
	cmd.Flags().StringVar(&o.Output, "output", ".", "write the package into directory `DIR`")
	return cmd
}
