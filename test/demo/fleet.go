package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
)

// The commands that let the device enrol. They are run as they are printed.
var (
	createProduct  = []string{"repo-manager", "product", "create", product, "--package", strings.Join(topLevel, ",")}
	registerDevice = []string{"repo-manager", "device", "register", deviceSerial, "--product", product, "--stage", "production", "--name", deviceName}
)

// register makes the product, and lets the device's serial number enrol.
func (d *demo) register(ctx context.Context) error {
	products, err := d.server.Products(ctx, pipelineName)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(products, func(p protocol.Product) bool { return p.Name == product }) {
		if err := d.command(ctx, createProduct); err != nil {
			return err
		}
	}
	switch _, err := d.server.Device(ctx, deviceName); {
	case err == nil:
		return nil
	case !isUnknown(err):
		return err
	}
	return d.command(ctx, registerDevice)
}

// command runs one of our programs as a person on this machine would, and says
// so.
func (d *demo) command(ctx context.Context, words []string) error {
	d.say.note(strings.Join(words, " "))
	cmd := exec.CommandContext(ctx, filepath.Join(d.dir, "bin", words[0]), words[1:]...)
	cmd.Env = append(os.Environ(), "APTFLEET_SOCKET="+d.server.Socket)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot %s: %w\n%s", strings.Join(words, " "), err, out)
	}
	return nil
}

// isUnknown tells whether the server has no such thing.
func isUnknown(err error) bool {
	var answer *client.Error
	return errors.As(err, &answer) && answer.Status == 404
}

// follows waits until the device has committed a version of the application,
// or a later one.
func (d *demo) follows(ctx context.Context, version string) error {
	snapshots, err := d.server.Snapshots(ctx, pipelineName)
	if err != nil {
		return err
	}
	var wanted string
	for _, s := range snapshots {
		if slices.Contains(s.Labels, "demo-app-"+version) {
			wanted = s.ID
		}
	}
	last := ""
	for {
		device, err := d.server.Device(ctx, deviceName)
		if err != nil && !isUnknown(err) {
			return err
		}
		r := device.Report
		if r != nil && runs(r) >= wanted && r.Phase == "IDLE" {
			d.say.note("the device runs demo-app " + version + ", committed")
			return nil
		}
		if line := doing(device); line != last {
			d.say.progress(line)
			last = line
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// doing is what a device that is not there yet does, in a line.
func doing(device protocol.Device) string {
	r := device.Report
	switch {
	case device.Name == "":
		return "device: it starts, and enrols as serial number " + deviceSerial
	case r == nil:
		return "device: enrolled, key " + device.Key
	case r.Phase != "IDLE":
		return strings.TrimSpace("device: " + r.Phase + " " + r.Progress)
	}
	return "device: " + cmp.Or(device.WhyNot, "about to ask what it should run")
}

// runs is the snapshot a device has booted and committed, or "". Ids of
// snapshots sort by time.
func runs(r *protocol.Report) string {
	for _, deployment := range r.Deployments {
		if deployment.Role == "booted" {
			return deployment.Snapshot
		}
	}
	return ""
}
