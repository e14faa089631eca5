package main

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"aptfleet/device-updater/internal/settings"
	"aptfleet/internal/term"
)

func (p *program) settingsDir() string { return filepath.Join(p.updaterDir(), "config") }

func (p *program) configCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "config",
		Short: "Show what this device is configured with",
		Long: `config shows the keys and values that the server has set for this device.
Programs find them in /etc/aptfleet/config/config.json, and in config.env beside
it for EnvironmentFile= of systemd and for sh. Only root may read them.`,
		Example: "  device-updater config list",
		Args:    usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return &term.UsageError{Text: "cannot run config: a command is missing", Hint: "device-updater config --help lists the commands"}
		},
	}
	group.AddCommand(p.configGetCommand(), p.configListCommand())
	return group
}

func (p *program) configGetCommand() *cobra.Command {
	var secrets bool
	cmd := &cobra.Command{
		Use:     "get KEY",
		Short:   "Print the value of a key",
		Long:    "get prints the value of a key, as it is. A secret is printed only with --show-secrets.",
		Example: "  device-updater config get interval",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			key := args[0]
			v, err := settings.Read(p.settingsDir())
			if err != nil {
				return err
			}
			value, ok := v.Values[key]
			switch {
			case !ok:
				return term.WithHint(fmt.Errorf("cannot find %q in the configuration", key), "device-updater config list")
			case slices.Contains(v.Secrets, key) && !secrets:
				return term.WithHint(fmt.Errorf("cannot show %s: it is a secret", key), "device-updater config get --show-secrets "+key)
			case p.io.JSON:
				return p.io.PrintJSON(value)
			}
			_, err = fmt.Fprintln(p.io.Out, settings.Text(value))
			return err
		},
	}
	showSecrets(cmd, &secrets)
	return cmd
}

func showSecrets(cmd *cobra.Command, show *bool) {
	cmd.Flags().BoolVar(show, "show-secrets", false, "print secrets too")
}

// listed is the configuration as `config list --json` prints it.
type listed struct {
	Revision string         `json:"revision,omitempty"`
	Applied  string         `json:"applied,omitempty"` // the revision that all hooks succeeded for
	Error    string         `json:"error,omitempty"`   // why that is another one
	Values   map[string]any `json:"values"`            // secrets are null, unless they were asked for
	Secrets  []string       `json:"secrets,omitempty"` // the keys that are
}

func (p *program) configListCommand() *cobra.Command {
	var secrets bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the keys with their values",
		Long:    "list prints all keys with their values, and says if a hook has not succeeded yet. Secrets are printed only with --show-secrets.",
		Example: "  device-updater config list --json",
		Args:    usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			v, err := settings.Read(p.settingsDir())
			if err != nil {
				return err
			}
			hidden := func(key string) bool { return !secrets && slices.Contains(v.Secrets, key) }
			if p.io.JSON {
				for _, key := range v.Secrets {
					if hidden(key) {
						v.Values[key] = nil
					}
				}
				return p.io.PrintJSON(listed{Revision: v.Revision, Applied: v.Applied, Error: v.Error, Values: v.Values, Secrets: v.Secrets})
			}
			table := p.io.NewTable("key", "value")
			for _, key := range v.Keys() {
				if hidden(key) {
					table.Row(key, "(secret)")
				} else {
					table.Row(key, settings.Text(v.Values[key]))
				}
			}
			table.Print("nothing is configured")
			if v.Error != "" {
				p.io.Note("not applied yet: %s", term.Printable(v.Error))
			}
			return nil
		},
	}
	showSecrets(cmd, &secrets)
	return cmd
}
