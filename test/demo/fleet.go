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

// follows waits until the device has been heard of since it was switched on,
// and has committed a version of the application, or a later one.
func (d *demo) follows(ctx context.Context, dev *virtual, version string) error {
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
		if device.Retired != nil {
			d.say.note("the device is retired: it goes on as it is")
			return nil
		}
		line := doing(device)
		if r := device.Report; r != nil && device.Seen.After(dev.on) {
			if runs := booted(r); runs.Snapshot >= wanted && r.Phase == "IDLE" {
				if line = "the device runs demo-app " + runs.Version + ", committed"; line != dev.told {
					d.say.note(line)
					dev.told = line
				}
				return nil
			}
		} else if r != nil {
			line = "device: it starts"
		}
		if line != last {
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

// booted is the deployment that a device runs. Ids of snapshots sort by time.
func booted(r *protocol.Report) protocol.Deployment {
	for _, deployment := range r.Deployments {
		if deployment.Role == "booted" {
			return deployment
		}
	}
	return protocol.Deployment{}
}
