package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"aptfleet/device-updater/internal/config"
	"aptfleet/device-updater/internal/daemon"
	"aptfleet/device-updater/internal/enrol"
	"aptfleet/device-updater/internal/exchange"
	"aptfleet/device-updater/internal/identity"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/term"
)

// enrolment is what a person says about one, beside the configuration.
type enrolment struct {
	server   string
	token    string
	serial   string
	ca       string // path
	firstUse bool
	insecure bool
	noWait   bool
	anew     bool
	yes      bool

	hardware identity.Hardware
	records  update.Records
}

func (p *program) enrolCommand() *cobra.Command {
	var o enrolment
	cmd := &cobra.Command{
		Use:   "enrol",
		Short: "Make this machine a device of a server",
		Long: `enrol makes the keys of this device, if it has none, and asks the server to
take it: by a one-time token, by a serial number that was registered, or because
an operator accepts it. What the server answers is pinned: its assignment key,
its archive key, and its certificate authority.

A device that is enrolled asks anew and takes nothing that contradicts what is
pinned. --anew forgets all that first: for another server or another product.`,
		Example: `  device-updater enrol --server https://fleet.example.com --token aft1_…
  device-updater enrol --server https://fleet.example.com --trust-on-first-use`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return p.enrol(cmd.Context(), o) },
	}
	flags := cmd.Flags()
	flags.StringVar(&o.server, "server", "", "URL of the server's public listener; default: that of the configuration")
	flags.StringVar(&o.token, "token", "", "one-time token; default: that of the configuration or the factory")
	flags.StringVar(&o.serial, "serial", "", "serial number; default: that of the configuration, the factory or the hardware")
	flags.StringVar(&o.ca, "ca", "", "`file` with the authority of the server's certificate")
	flags.BoolVar(&o.firstUse, "trust-on-first-use", false, "believe the authority that the server presents, and say which it is")
	flags.BoolVar(&o.insecure, "insecure", false, "allow plain HTTP, for test networks")
	flags.BoolVar(&o.noWait, "no-wait", false, "do not wait for an operator; exit with 3 if one must decide")
	flags.BoolVar(&o.anew, "anew", false, "forget how it is enrolled now")
	flags.BoolVar(&o.yes, "yes", false, "with --anew: do it")
	return cmd
}

// settings is the configuration, which a machine that is not a device yet may
// lack.
func (p *program) settings() (config.Config, error) {
	if _, err := os.Stat(p.configPath); errors.Is(err, fs.ErrNotExist) {
		return config.Config{}, nil
	}
	return config.Load(p.configPath)
}

func (p *program) enrol(ctx context.Context, o enrolment) error {
	if _, err := os.Stat(filepath.Join(p.sysroot, "deployments")); err != nil {
		return term.WithHint(fmt.Errorf("cannot enrol: this machine is no device: %w", err), "mount the file system with the deployments at --sysroot")
	}
	c, err := p.settings()
	if err != nil {
		return err
	}
	if o.records, err = update.OpenRecords(p.updaterDir()); err != nil {
		return err
	}
	o.hardware = identity.ReadHardware(os.DirFS("/"))
	was, enrolled, err := p.identity().Enrolment()
	if err != nil && !o.anew {
		return err
	}
	if enrolled && o.anew && !o.yes {
		return &update.Refused{
			Reason: fmt.Sprintf("cannot enrol anew: this device is %s of %s, product %s, which is forgotten then", was.Device, was.Server, was.Product),
			Hint:   "device-updater enrol --anew --yes does it",
		}
	}
	again := enrolled && !o.anew
	if again {
		if o.server != "" && strings.TrimRight(o.server, "/") != was.Server {
			return &update.Refused{Reason: fmt.Sprintf("cannot enrol at %s: this device is %s of %s", o.server, was.Device, was.Server), Hint: "device-updater enrol --anew"}
		}
		o.server, o.insecure, o.ca, c.CA = was.Server, was.Insecure, "", ""
	}
	client, err := p.enroller(ctx, c, o)
	if err != nil {
		return err
	}
	if again {
		client.Token, client.Product, client.FirstUse, client.CA = "", was.Product, nil, nil
		if was.CA != "" {
			client.CA = []byte(was.CA)
		}
	}
	e, err := p.await(ctx, client, o.noWait)
	if err != nil {
		return hintUnknown(err)
	}
	if what := was.Same(e); again && what != "" {
		return term.WithHint(fmt.Errorf("cannot take the answer of %s: its %s is not the one that is pinned", was.Server, what), "device-updater enrol --anew forgets what is pinned")
	}
	if err := p.identity().PutEnrolment(e); err != nil {
		return err
	}
	p.io.Result(e.Device, "enrolled as %s, product %s of pipeline %s, at %s", term.Printable(e.Device), e.Product, e.Pipeline, e.Server)
	if p.io.JSON {
		if err := p.showIdentity(ctx); err != nil {
			return err
		}
	}
	_, err = daemon.NewClient(p.socket).Ask(ctx, daemon.Request{Act: daemon.Reload}, nil)
	if errors.Is(err, daemon.ErrNoDaemon) {
		return nil
	}
	return err
}

// hintUnknown says how a server that nothing vouches for can be believed.
func hintUnknown(err error) error {
	if enrol.Unknown(err) {
		return term.WithHint(err, "give --token or --ca from the server's operator (repo-manager key ca); or --trust-on-first-use")
	}
	return err
}

// await asks until a person has decided.
func (p *program) await(ctx context.Context, client *enrol.Client, noWait bool) (identity.Enrolment, error) {
	e, err := client.Ask(ctx)
	var pending *enrol.Pending
	if noWait || !errors.As(err, &pending) {
		return e, err
	}
	p.io.Note("this machine has the key %s: compare it with what the operator sees", pending.Key)
	backoff := exchange.Backoff{First: firstAsk, Last: lastAsk, Random: mathrand.Float64}
	said := ""
	return client.Until(ctx, backoff, func(err error) {
		if err.Error() != said {
			said = err.Error()
			p.io.Note("%s", term.Printable(said))
		}
	})
}

// enroller is who asks the server that the configuration and the person name.
// It makes the identity where there is none.
func (p *program) enroller(ctx context.Context, c config.Config, o enrolment) (*enrol.Client, error) {
	dir := p.identity()
	r := enrol.Request{
		Server: strings.TrimRight(cmp.Or(o.server, c.Server), "/"), Token: cmp.Or(o.token, c.Token), Product: c.Product, Architecture: architecture(),
		Machine: o.hardware.Machine, Features: features, Insecure: o.insecure || c.Insecure,
	}
	if r.Server == "" {
		return nil, &term.UsageError{Text: "cannot enrol: which server is not said", Hint: "device-updater enrol --server URL, or `server` in the configuration"}
	}
	var err error
	if r.Token == "" {
		if r.Token, err = dir.Token(); err != nil {
			return nil, err
		}
	}
	if r.Serial, err = dir.Serial(cmp.Or(o.serial, c.Serial), o.hardware); err != nil {
		return nil, term.WithHint(err, "device-updater enrol --serial NUMBER, or `serial` in the configuration")
	}
	if r.Revision, err = p.board(c).Revision(ctx); err != nil {
		// The report will say so, too, once there is somebody to report to.
		p.io.Note("%s: enrolling without it", term.Printable(err.Error()))
	}
	if r.Boot, err = identity.BootID(os.DirFS("/")); err != nil {
		return nil, err
	}
	if path := cmp.Or(o.ca, c.CA); path != "" {
		if r.CA, err = os.ReadFile(path); err != nil {
			return nil, fmt.Errorf("cannot read the certificate authority: %w", err)
		}
	}
	if o.firstUse {
		r.FirstUse = func(fingerprint string) {
			p.io.Note("believing the certificate authority with the SHA-256 %s, which %s presents", fingerprint, r.Server)
		}
	}
	keys, err := dir.Make(rand.Reader)
	if err != nil {
		return nil, err
	}
	return &enrol.Client{Keys: keys, Trust: p.trust(o.records), Clock: time.Now, Request: r}, nil
}
