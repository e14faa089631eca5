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

	"aptfleet/device-updater/internal/boot"
	"aptfleet/device-updater/internal/config"
	"aptfleet/device-updater/internal/rootfs"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/atomicfile"
	"aptfleet/internal/term"
)

func (p *program) initCommand() *cobra.Command {
	var d update.Deployment
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a disk with a first deployment bootable",
		Long: `init is for factories: on a mounted file system that holds deployments/<n> it
makes the directories of a device, records what the deployment is, and commits
it. It may be repeated; a device that has run is not touched.`,
		Example: "  device-updater init --sysroot /mnt --boot-control /mnt-boot --deployment 1 --snapshot 20261120T101500Z --state 4f6c…",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.init(cmd.Context(), d)
		},
	}
	cmd.Flags().IntVar(&d.ID, "deployment", 1, "number of the deployment")
	cmd.Flags().StringVar(&d.State, "state", "", "id of the state that it was made from")
	cmd.Flags().StringVar(&d.Snapshot, "snapshot", "", "id of the snapshot that it was made from")
	return cmd
}

func (p *program) init(ctx context.Context, d update.Deployment) error {
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
	if d.Packages, err = update.InstalledPackages(roots.Path(name)); err != nil {
		return err
	}
	if d.Units, err = (rootfs.Units{Sysroot: p.sysroot}).Declared(roots.Path(name)); err != nil {
		return err
	}
	if err := records.PutDeployment(d); err != nil {
		return err
	}
	// Whatever is changed on the device from now on can be found.
	var manifest bytes.Buffer
	if err := rootfs.WriteManifest(ctx, &manifest, roots.Path(name), nil); err != nil {
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
