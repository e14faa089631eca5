package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

func newConfigSchemaCommand(c *cli) *cobra.Command {
	group := &cobra.Command{
		Use:   "schema",
		Short: "Which keys a product has",
		Long: `A schema names the keys of a product, with their types. With one, other keys and
values that do not fit are refused. It is a YAML file:

  keys:
    interval: {type: integer, default: 30, min: 1, max: 3600}
    mode: {type: enum, values: [eco, fast], default: eco}
    host.name: {type: string, pattern: '[a-z.]+', description: where data goes}
    api.token: {type: secret, required: true}

Types are string, integer, number, boolean, enum and secret. A device that lacks
a required key keeps the configuration that it has.`,
		Example: `  repo-manager config schema show gateway >schema.yaml
  repo-manager config schema set gateway --file schema.yaml`,
	}
	group.AddCommand(newConfigSchemaShowCommand(c), newConfigSchemaSetCommand(c), newConfigSchemaUnsetCommand(c))
	return group
}

func newConfigSchemaShowCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "show PRODUCT",
		Short:   "Print the schema of a product",
		Long:    `Print the schema of a product as the YAML that "schema set" takes.`,
		Example: `  repo-manager config schema show gateway`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			s, err := api.ConfigSchema(cmd.Context(), pipeline, args[0])
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(s)
			}
			if s.Keys == nil {
				c.io.Note("product %s has no schema: every key is allowed", term.Printable(s.Product))
				return nil
			}
			text, err := schemaYAML(s)
			if err != nil {
				return err
			}
			_, err = c.io.Out.Write(text)
			return err
		},
	}
}

// schemaFile is a schema as people write it.
type schemaFile struct {
	Keys map[string]schemaKey `yaml:"keys"`
}

type schemaKey struct {
	Type        string   `yaml:"type"`
	Description string   `yaml:"description,omitempty"`
	Default     any      `yaml:"default,omitempty"`
	Required    bool     `yaml:"required,omitempty"`
	Values      []string `yaml:"values,omitempty,flow"`
	Pattern     string   `yaml:"pattern,omitempty"`
	Min         *float64 `yaml:"min,omitempty"`
	Max         *float64 `yaml:"max,omitempty"`
}

func schemaYAML(s protocol.ConfigSchema) ([]byte, error) {
	file := schemaFile{Keys: make(map[string]schemaKey, len(s.Keys))}
	for name, f := range s.Keys {
		file.Keys[name] = schemaKey(f)
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(file), enc.Close()); err != nil {
		return nil, fmt.Errorf("cannot write the schema: %w", err)
	}
	return out.Bytes(), nil
}

// parseSchema reads a schema; what it does not know is an error.
func parseSchema(text []byte) (protocol.ConfigSchema, error) {
	var file schemaFile
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&file); err != nil {
		return protocol.ConfigSchema{}, fmt.Errorf("cannot read the schema: %w", err)
	}
	if err := dec.Decode(new(schemaFile)); !errors.Is(err, io.EOF) {
		return protocol.ConfigSchema{}, errors.New("cannot read the schema: it goes on after the first document")
	}
	if file.Keys == nil {
		return protocol.ConfigSchema{}, errors.New("cannot read the schema: it has no keys")
	}
	out := protocol.ConfigSchema{Keys: make(map[string]protocol.ConfigField, len(file.Keys))}
	for name, key := range file.Keys {
		out.Keys[name] = protocol.ConfigField(key)
	}
	return out, nil
}

// maxSchema bounds a schema file in bytes; the server takes less than 4 MiB.
const maxSchema = 2 << 20

func newConfigSchemaSetCommand(c *cli) *cobra.Command {
	var file string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "set PRODUCT --file FILE",
		Short: "Give a product another schema",
		Long: `Give a product another schema. It is refused, with the list of them, while values
that are set do not fit: of the product, of its devices, or of a stage.`,
		Example: `  repo-manager config schema set gateway --file schema.yaml --dry-run`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needs(cmd, "file"); err != nil {
				return err
			}
			source := os.Stdin
			if file != "-" {
				opened, err := os.Open(file)
				if err != nil {
					return fmt.Errorf("cannot read the schema: %w", err)
				}
				defer opened.Close()
				source = opened
			}
			text, err := io.ReadAll(io.LimitReader(source, maxSchema+1))
			if err != nil {
				return fmt.Errorf("cannot read the schema: %w", err)
			}
			if len(text) > maxSchema {
				return fmt.Errorf("cannot read the schema: it is larger than %s", term.HumanBytes(maxSchema))
			}
			schema, err := parseSchema(text)
			if err != nil {
				return term.WithHint(err, "repo-manager config schema --help shows what it looks like")
			}
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			done, err := api.SetConfigSchema(cmd.Context(), pipeline, args[0], schema, dryRun)
			return c.printSchemaSet(done, err, dryRun, fmt.Sprintf("a schema of %d keys", done.Keys))
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "YAML `file` with the schema; -: from standard input")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only tell whether it could be set, and how many devices would get a new revision")
	return cmd
}

func newConfigSchemaUnsetCommand(c *cli) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:     "unset PRODUCT",
		Short:   "Take the schema of a product away",
		Long:    `Take the schema of a product away: every key is allowed then. Values that are set stay.`,
		Example: `  repo-manager config schema unset gateway`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			done, err := api.UnsetConfigSchema(cmd.Context(), pipeline, args[0], dryRun)
			return c.printSchemaSet(done, err, dryRun, "no schema")
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only tell how many devices would get a new revision")
	return cmd
}

func (c *cli) printSchemaSet(done protocol.ConfigSchemaSet, err error, dryRun bool, what string) error {
	if err != nil {
		return err
	}
	if c.io.JSON {
		return c.io.PrintJSON(done)
	}
	if dryRun {
		c.io.Result(done.Product, "product %s would have %s; %s would get a new revision; nothing was changed", done.Product, what, devicesText(done.Devices))
		return nil
	}
	c.io.Result(done.Product, "product %s has %s now; %s will get a new revision", done.Product, what, devicesText(done.Devices))
	return nil
}
