package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"aptfleet/builder/internal/image"
	"aptfleet/internal/bom"
	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

// imageOptions are the flags of image.
type imageOptions struct {
	server, token string
	ca            string
	archive       string
	pipeline      string
	snapshot      string
	product       string
	modules       []string
	packages      []string
	hostname      string
	settings      string
	size          string
	serial        bool
	efi           bool
	output        string
	verbose       bool
}

func (p *program) imageCommand() *cobra.Command {
	var o imageOptions
	cmd := &cobra.Command{
		Use:   "image --snapshot ID --product NAME --output FILE",
		Short: "Make the disk image of a new device",
		Long: `image makes a disk that boots: GRUB with the rules of Aptfleet in it, boot
control, and a first deployment that apt installs from one snapshot and from
nothing else. The device-updater in that deployment records and commits it.

With --product its packages are exactly the product's bill of materials in that
snapshot, the one that a server assigns to devices, and the deployment's record
says so. With --package, apt computes what these packages need. Among them must
be device-updater, a kernel (e.g. linux-image-amd64), systemd-sysv, and what the
device is for. Kernel arguments come from files that packages ship in
/usr/lib/aptfleet/kernel.d/.

It needs root, and the Debian packages mmdebstrap, fdisk, e2fsprogs,
btrfs-progs, grub-common and grub-pc-bin. The image is for machines with a
BIOS, and with --efi, which needs grub-efi-amd64-bin and mtools, for those with
UEFI and without secure boot, too; it is raw and sparse (cp --sparse=always,
bmaptool and qemu-img keep that).`,
		Example: `  builder image --snapshot production --product gateway --settings device.yaml --output gateway.img
  builder image --snapshot 20261120T101500Z --package demo-device --output demo.img
  qemu-system-x86_64 -m 1024 -drive file=demo.img,format=raw,if=virtio`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.image(cmd.Context(), o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.server, "server", "", "`URL` of repo-manager's admin listener (default $APTFLEET_SERVER)")
	flags.StringVar(&o.token, "token", "", "access `TOKEN` (default $APTFLEET_TOKEN)")
	flags.StringVar(&o.ca, "ca", "", "`FILE` with the certificate of the server's own CA, in PEM (default $APTFLEET_CA)")
	flags.StringVar(&o.archive, "archive", "", "`URL` of the archive (default: what the server says)")
	flags.StringVar(&o.pipeline, "pipeline", "", "`NAME` of the pipeline (default: the only one)")
	flags.StringVar(&o.snapshot, "snapshot", "", "`ID` of a snapshot, or a stage that offers one")
	flags.StringVar(&o.product, "product", "", "`NAME` of the product that the device is of")
	flags.StringArrayVar(&o.modules, "module", nil, "`NAME` of a module of the product that the device has; may be repeated")
	flags.StringArrayVar(&o.packages, "package", nil, "`NAME` of a package that the device has, instead of a product; may be repeated")
	flags.StringVar(&o.hostname, "hostname", "device", "`NAME` of the machine")
	flags.StringVar(&o.settings, "settings", "", "`FILE` that becomes /etc/aptfleet/device.yaml")
	flags.StringVar(&o.size, "size", "4G", "`SIZE` of the disk, e.g. 8G")
	flags.BoolVar(&o.serial, "serial", false, "the loader speaks on the first serial port, 115200 baud, too")
	flags.BoolVar(&o.efi, "efi", false, "machines with UEFI boot it, too")
	flags.StringVar(&o.output, "output", "", "`FILE` to make")
	flags.BoolVar(&o.verbose, "verbose", false, "print what apt says")
	return cmd
}

func (p *program) image(ctx context.Context, o imageOptions) (err error) {
	if o.server == "" {
		o.server = p.getenv("APTFLEET_SERVER")
	}
	if o.token == "" {
		o.token = p.getenv("APTFLEET_TOKEN")
	}
	if o.ca == "" {
		o.ca = p.getenv("APTFLEET_CA")
	}
	size, sizeErr := parseSize(o.size)
	switch {
	case o.server == "":
		return &term.UsageError{Text: "cannot make image: it is not said which server has the snapshot", Hint: "set APTFLEET_SERVER or give --server URL"}
	case o.snapshot == "" || o.product == "" && len(o.packages) == 0 || o.output == "":
		return &term.UsageError{Text: "cannot make image: --snapshot, --product (or --package) and --output are needed", Hint: "builder image --help has an example"}
	case o.product != "" && len(o.packages) > 0:
		return &term.UsageError{Text: "cannot make image: a product has the packages of its bill of materials and no others", Hint: "give --product or --package"}
	case o.product == "" && len(o.modules) > 0:
		return &term.UsageError{Text: "cannot make image: modules are those of a product", Hint: "give --product"}
	case sizeErr != nil:
		return &term.UsageError{Text: "cannot make image: " + sizeErr.Error(), Hint: "--size 8G"}
	case os.Geteuid() != 0:
		return term.WithHint(errors.New("cannot make image: mounting file systems needs root"), "sudo builder image …")
	}
	needed := map[string]string{"mmdebstrap": "mmdebstrap", "sfdisk": "fdisk", "mke2fs": "e2fsprogs", "mkfs.btrfs": "btrfs-progs", "grub-mkimage": "grub-common grub-pc-bin"}
	if o.efi {
		needed["mformat"] = "mtools grub-efi-amd64-bin"
	}
	for name, debian := range needed {
		if _, err := image.LookPath(name); err != nil {
			return term.WithHint(fmt.Errorf("cannot make image: there is no %s on this machine", name), "apt-get install "+debian)
		}
	}
	plan := image.Plan{Packages: o.packages, Hostname: o.hostname, Size: size, Architecture: debianArchitecture(), EFI: o.efi}
	if o.serial {
		plan.Loader = "serial --unit=0 --speed=115200\nterminal_output --append serial"
	}
	if o.ca != "" {
		if plan.CA, err = filepath.Abs(o.ca); err != nil {
			return fmt.Errorf("cannot make image: %w", err)
		}
	}
	if o.settings != "" {
		if plan.Settings, err = os.ReadFile(o.settings); err != nil {
			return fmt.Errorf("cannot make image: %w", err)
		}
	}
	keyring, err := os.CreateTemp("", "aptfleet-keyring-*.asc")
	if err != nil {
		return fmt.Errorf("cannot make image: %w", err)
	}
	defer func() { err = errors.Join(err, keyring.Close(), os.Remove(keyring.Name())) }()
	certificate, err := p.resolve(ctx, o, &plan)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(keyring, certificate); err != nil {
		return fmt.Errorf("cannot make image: %w", err)
	}
	plan.Keyring = keyring.Name()
	output, err := filepath.Abs(o.output)
	if err != nil {
		return fmt.Errorf("cannot make image: %w", err)
	}
	log := io.Discard
	if o.verbose {
		log = p.io.Err
	}
	p.io.Note("making %s from %s; this takes a minute or two", o.output, plan.Base)
	if err := image.Build(ctx, plan, output, log); err != nil {
		return err
	}
	if p.io.JSON {
		made := map[string]any{"image": output, "snapshot": plan.Snapshot, "state": plan.State, "size": plan.Size}
		if plan.BOM != nil {
			made["bom"] = bom.Sum(plan.BOM)
		}
		return p.io.PrintJSON(made)
	}
	p.io.Result(output, "%s is ready: snapshot %s, deployment 1 committed", o.output, plan.Snapshot)
	return nil
}

// resolve asks the server about the snapshot and fills the plan in. It returns
// the archive key's certificate.
func (p *program) resolve(ctx context.Context, o imageOptions, plan *image.Plan) (certificate string, err error) {
	var ca []byte
	if plan.CA != "" {
		if ca, err = os.ReadFile(plan.CA); err != nil {
			return "", fmt.Errorf("cannot read the CA certificate: %w", err)
		}
	}
	c, err := client.New(client.Options{Server: o.server, Token: o.token, CA: ca, UserAgent: "aptfleet-builder"})
	if err != nil {
		return "", &term.UsageError{Text: err.Error()}
	}
	if o.pipeline == "" {
		if o.pipeline, err = onlyPipeline(ctx, c); err != nil {
			return "", err
		}
	}
	pipeline, err := c.Pipeline(ctx, o.pipeline)
	if err != nil {
		return "", err
	}
	if !slices.Contains(pipeline.Architectures, plan.Architecture) {
		return "", fmt.Errorf("cannot make image: pipeline %s has %s, and this machine is %s", pipeline.Name, strings.Join(pipeline.Architectures, ", "), plan.Architecture)
	}
	snapshot, err := c.Snapshot(ctx, o.pipeline, o.snapshot)
	if err != nil {
		return "", err
	}
	if o.archive == "" {
		system, err := c.System(ctx)
		if err != nil {
			return "", err
		}
		o.archive = system.Archive
	}
	if o.product != "" {
		if err := exactly(ctx, c, o, snapshot, plan); err != nil {
			return "", err
		}
	}
	key, err := c.Key(ctx)
	if err != nil {
		return "", err
	}
	plan.Base = strings.TrimRight(o.archive, "/") + "/" + pipeline.Name + "/snapshots/" + snapshot.ID
	plan.Distribution, plan.State, plan.Snapshot = pipeline.Distribution, snapshot.State, snapshot.ID
	for _, component := range pipeline.Components {
		plan.Components = append(plan.Components, component.Name)
	}
	return key.Certificate, nil
}

// exactly fills in the bill of materials of a product in a snapshot.
func exactly(ctx context.Context, c *client.Client, o imageOptions, snapshot protocol.Snapshot, plan *image.Plan) error {
	text, err := c.BOMText(ctx, o.pipeline, o.product, o.modules, snapshot.ID, "text")
	if err != nil {
		return err
	}
	list, err := bom.Decode(text)
	if err != nil {
		return err
	}
	if list.State != snapshot.State || list.Product != o.product {
		return fmt.Errorf("cannot make image: the server's bill of materials is of product %s in state %s, not of %s in %s", list.Product, list.State, o.product, snapshot.State)
	}
	if list.Architecture != plan.Architecture {
		return fmt.Errorf("cannot make image: product %s is for %s, and this machine is %s", o.product, list.Architecture, plan.Architecture)
	}
	plan.Exactly(text, list)
	return nil
}

// debianArchitecture is Debian's name of what this program runs on.
func debianArchitecture() string {
	if name, ok := map[string]string{"386": "i386", "arm": "armhf", "ppc64le": "ppc64el"}[runtime.GOARCH]; ok {
		return name
	}
	return runtime.GOARCH
}

// parseSize reads a number of bytes with a suffix K, M, G or T (powers of
// 1024).
func parseSize(text string) (int64, error) {
	digits := strings.TrimRight(text, "KMGT")
	n, err := strconv.ParseInt(digits, 10, 64)
	suffix := text[len(digits):]
	shift := 10 * (1 + strings.Index("KMGT", suffix))
	if suffix == "" {
		shift = 0
	}
	if err != nil || n <= 0 || len(suffix) > 1 || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q is no size", text)
	}
	return n << shift, nil
}
