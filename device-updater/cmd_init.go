package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/boot"
	"aptfleet/device-updater/internal/config"
	"aptfleet/device-updater/internal/drift"
	"aptfleet/device-updater/internal/rootfs"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/atomicfile"
	"aptfleet/internal/bom"
	"aptfleet/internal/term"
)

func (p *program) initCommand() *cobra.Command {
	var d update.Deployment
	var bill string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a disk with a first deployment bootable",
		Long: `init is for factories: on a mounted file system that holds deployments/<n> it
makes the directories of a device, records what the deployment is, and commits
it. It may be repeated; a device that has run is not touched.`,
		Example: "  device-updater init --sysroot /mnt --boot-control /mnt-boot --deployment 1 --snapshot 20261120T101500Z --state 4f6c…",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.init(cmd.Context(), d, bill)
		},
	}
	cmd.Flags().IntVar(&d.ID, "deployment", 1, "number of the deployment")
	cmd.Flags().StringVar(&d.State, "state", "", "id of the state that it was made from")
	cmd.Flags().StringVar(&d.Snapshot, "snapshot", "", "id of the snapshot that it was made from")
	cmd.Flags().StringVar(&bill, "bom", "", "`file` with the bill of materials that its packages are, exactly")
	return cmd
}

func (p *program) init(ctx context.Context, d update.Deployment, bill string) error {
	roots, err := rootfs.Open(p.sysroot)
	if err != nil {
		return err
	}
	name := filepath.Join("deployments", strconv.Itoa(d.ID))
	if !roots.Exists(name) {
		return term.WithHint(fmt.Errorf("cannot commit deployment %d: %s is not a subvolume", d.ID, roots.Path(name)), "unpack the root file system into a btrfs subvolume of that name first")
	}
	if all, err := boot.List(p.sysroot); err != nil || len(all) > 1 {
		return fmt.Errorf("cannot make this disk a new device: it holds deployments %v already: %w", all, os.ErrExist)
	}
	for _, dir := range []string{"pristine", "base", "state", "identity"} {
		if err := os.MkdirAll(filepath.Join(p.sysroot, dir), 0o755); err != nil {
			return fmt.Errorf("cannot make the directories of a device: %w", err)
		}
	}
	if err := enter(roots.Path(name)); err != nil {
		return err
	}
	records, err := update.OpenRecords(p.updaterDir())
	if err != nil {
		return err
	}
	// What the deployment's own configuration wants first gives it a version.
	if c, err := config.Load(filepath.Join(roots.Path(name), config.DefaultPath)); err == nil {
		d.TopLevel = c.Packages
	}
	d.Made = time.Now().UTC().Truncate(time.Second)
	if bill != "" {
		err = exactly(&d, bill, roots.Path(name))
	} else {
		d.Packages, err = update.InstalledPackages(roots.Path(name))
	}
	if err != nil {
		return err
	}
	if d.Units, err = (rootfs.Units{Sysroot: p.sysroot}).Declared(roots.Path(name)); err != nil {
		return err
	}
	if err := records.PutDeployment(d); err != nil {
		return err
	}
	// Whatever is changed on the device from now on can be found.
	found, err := drift.Check(ctx, roots.Path(name), nil)
	if err != nil {
		return err
	}
	var manifest bytes.Buffer
	if err := update.Record(ctx, &manifest, roots.Path(name), nil, nil, found.Damage); err != nil {
		return err
	}
	if err := atomicfile.Write(records.Manifest(d.ID), manifest.Bytes(), 0o600); err != nil {
		return err
	}
	if err := atomicfile.SyncFS(p.sysroot); err != nil {
		return err
	}
	return p.control().Commit(d.ID)
}

// exactly holds what is installed in root against the bill of materials in a
// file, and records in d that it is that.
func exactly(d *update.Deployment, file, root string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("cannot read bill of materials: %w", err)
	}
	list, err := bom.Decode(text)
	if err != nil {
		return err
	}
	if list.State != d.State || list.Architecture != architecture() {
		return fmt.Errorf("cannot commit deployment %d: the bill of materials is of state %s for %s, not of %q for %s", d.ID, list.State, list.Architecture, d.State, architecture())
	}
	d.BOM, d.TopLevel = string(text), list.TopLevel
	for _, item := range list.Packages {
		d.Packages = append(d.Packages, apt.Package{Name: item.Name, Architecture: item.Architecture, Version: item.Version, SHA256: item.SHA256})
	}
	differs, err := update.Mismatch(root, *d)
	if err == nil && differs != "" {
		err = fmt.Errorf("cannot commit deployment %d: it is not its bill of materials: %s", d.ID, differs)
	}
	return err
}

// enter tells the loader how the deployment starts, if it has a kernel.
func enter(path string) error {
	root, err := os.OpenRoot(path)
	if err != nil {
		return fmt.Errorf("cannot look into %s: %w", path, err)
	}
	defer root.Close()
	if err := boot.WriteEntry(root); err != nil && !errors.Is(err, boot.ErrNoKernel) {
		return err
	}
	return nil
}
