package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

func newDeviceCommand(c *cli) *cobra.Command {
	group := &cobra.Command{
		Use:   "device",
		Short: "Devices: who may become one, what they run, what they should",
		Example: `  repo-manager device list --state failed
  repo-manager device token create --product gateway --stage production`,
	}
	group.AddCommand(
		newDeviceListCommand(c), newDeviceShowCommand(c),
		newDeviceRegisterCommand(c), newDeviceUnregisterCommand(c), newDeviceRegisteredCommand(c), newDeviceTokenCommand(c),
		newDevicePendingCommand(c), newDeviceAcceptCommand(c), newDeviceRefuseCommand(c), newDevicePardonCommand(c),
		newDeviceAssignCommand(c), newDeviceSetCommand(c), newDeviceHoldCommand(c), newDeviceUnholdCommand(c), newDevicePinCommand(c), newDeviceUnpinCommand(c),
		newDeviceRetireCommand(c), newDeviceResolveCommand(c),
	)
	return group
}

// deviceStates are the words of device list --state.
var deviceStates = []string{
	protocol.DeviceOK, protocol.DeviceBehind, protocol.DeviceFailed, protocol.DeviceHeld, protocol.DeviceSilent, protocol.DeviceClone,
	protocol.DevicePending, protocol.DeviceRetired,
}

func newDeviceListCommand(c *cli) *cobra.Command {
	var filter protocol.DeviceFilter
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the devices with what they have and should have",
		Long: `List the devices with what they have and should have. States:

  ok       runs what it should
  behind   does not, and "why not" says why
  failed   what it should run failed on it, or what it runs is not healthy
  held     an operator or its owner keeps it as it is
  silent   was not heard of for ten minutes
  clone    two machines have its key; see device resolve
  pending  is enrolled and has never reported
  retired  is no device any more

With --package those are listed that run such a package, by the bill of materials
of what is booted, however far their stage is. Devices that run what this server
does not know are not among them.`,
		Example: `  repo-manager device list --state failed
  repo-manager device list --product gateway --stage production --package 'openssl<<3.0.15'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if filter.State != "" && !slices.Contains(deviceStates, filter.State) {
				return term.WithHint(term.Usagef("cannot list devices of state %q: there is no such state", filter.State), "one of "+strings.Join(deviceStates, ", "))
			}
			api, err := c.client()
			if err != nil {
				return err
			}
			filter.Pipeline = c.pipeline
			all, err := api.Devices(cmd.Context(), filter)
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(all)
			}
			table := c.io.NewTable("device", "state", "product", "stage", "revision", "has", "should have", "seen", "why not")
			for _, d := range all {
				table.Row(d.Name, d.State, d.Product, d.Stage, d.Revision, runs(d.Has), runs(d.Should), d.Seen, d.WhyNot)
			}
			table.Print("no devices: repo-manager device register SERIAL, or device token create, lets machines enrol")
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&filter.Product, "product", "", "only those of this product `name`")
	f.StringVar(&filter.Stage, "stage", "", "only those that follow this stage `name`")
	f.StringVar(&filter.Revision, "revision", "", "only those of this hardware `revision`")
	f.StringVar(&filter.State, "state", "", "only those in this `state`")
	f.StringVar(&filter.Snapshot, "snapshot", "", "only those that run this snapshot, an `id` or the beginning of one")
	f.StringVar(&filter.Package, "package", "", "only those that run what satisfies this `relation`, e.g. 'openssl<<3.0.15'")
	mustComplete(cmd, "stage", c.complete(stageNames))
	mustComplete(cmd, "state", cobra.FixedCompletions(deviceStates, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// runs is a release in a table.
func runs(r *protocol.Runs) any {
	if r == nil {
		return ""
	}
	return offer(r.Snapshot, r.State)
}

func newDeviceShowCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show a device: what it has, should have, and why not",
		Example: `  repo-manager device show gw-17`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			d, err := api.Device(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(d)
			}
			c.io.Facts(deviceFacts(d)...)
			return nil
		},
	}
}

func deviceFacts(d protocol.Device) []term.Fact {
	facts := []term.Fact{
		{Name: "device", Value: d.Name},
		{Name: "state", Value: d.State},
		{Name: "pipeline", Value: d.Pipeline},
		{Name: "product", Value: d.Product},
		{Name: "stage", Value: d.Stage},
		{Name: "serial number", Value: d.Serial},
		{Name: "modules", Value: strings.Join(d.Modules, " ")},
		{Name: "architecture", Value: d.Architecture},
		{Name: "revision", Value: d.Revision},
		{Name: "has", Value: runs(d.Has)},
		{Name: "should have", Value: runs(d.Should)},
		{Name: "healthy", Value: healthText(d)},
		{Name: "why not", Value: d.WhyNot},
		{Name: "hold", Value: holdText(d.Hold)},
	}
	if d.Pin != nil {
		facts = append(facts, term.Fact{Name: "pin", Value: d.Pin.Snapshot + ": " + d.Pin.Reason + ", by " + d.Pin.By})
	}
	if d.Retired != nil {
		facts = append(facts, term.Fact{Name: "retired", Value: d.Retired.Reason + ", by " + d.Retired.By + " on " + day(d.Retired.At)})
	}
	facts = append(facts, term.Fact{Name: "enrolled", Value: d.Enrolled}, term.Fact{Name: "seen", Value: d.Seen})
	if d.Where != nil {
		facts = append(facts, term.Fact{Name: "address", Value: d.Where.Address}, term.Fact{Name: "machine", Value: d.Where.Machine})
	}
	if d.Skew > 5 || d.Skew < -5 {
		facts = append(facts, term.Fact{Name: "clock", Value: fmt.Sprintf("%+.0f s", d.Skew)})
	}
	facts = append(facts, term.Fact{Name: "key", Value: d.Key}, term.Fact{Name: "assignment", Value: int64(d.Counter)})
	if r := d.Report; r != nil {
		facts = append(facts, reportFacts(*r)...)
	}
	if d.Clone != nil {
		facts = append(facts, term.Fact{Name: "clone", Value: term.Styled{Text: d.Clone.Why + ", since " + instant(d.Clone.Since), Style: term.Bad}})
		for _, m := range d.Clone.Machines {
			facts = append(facts, term.Fact{Name: "machine", Value: fmt.Sprintf("%s, boot %s, from %s, %s to %s", m.Machine, m.Boot, m.Address, instant(m.First), instant(m.Last))})
		}
	}
	for _, e := range d.History {
		facts = append(facts, term.Fact{Name: "history", Value: instant(e.At) + "  " + e.Text})
	}
	return facts
}

func reportFacts(r protocol.Report) []term.Fact {
	facts := []term.Fact{
		{Name: "phase", Value: r.Phase},
		{Name: "progress", Value: r.Progress},
		{Name: "last error", Value: r.LastError},
		{Name: "configuration", Value: r.Config},
		{Name: "updater", Value: r.Updater},
	}
	if r.FreeBytes > 0 {
		facts = append(facts, term.Fact{Name: "free", Value: term.HumanBytes(r.FreeBytes)})
	}
	if r.Developer {
		facts = append(facts, term.Fact{Name: "developer mode", Value: "yes"})
	}
	if r.Refused != nil {
		facts = append(facts, term.Fact{Name: "refused", Value: r.Refused.Reason + ": " + r.Refused.Text})
	}
	if len(r.Overlay) > 0 {
		facts = append(facts, term.Fact{Name: "overlay", Value: strings.Join(r.Overlay, ", ")})
	}
	for _, h := range r.Holds {
		facts = append(facts, term.Fact{Name: "its own hold", Value: holdText(&h)})
	}
	for _, f := range r.Firmware {
		facts = append(facts, term.Fact{Name: "firmware", Value: firmwareText(f)})
	}
	for _, deployment := range r.Deployments {
		text := name(deployment.Snapshot, deployment.State)
		if deployment.Version != "" {
			text += " (" + deployment.Version + ")"
		}
		facts = append(facts, term.Fact{Name: deployment.Role, Value: text})
	}
	for _, f := range r.Failed {
		facts = append(facts, term.Fact{Name: "failed", Value: term.Styled{Text: name(f.Snapshot, f.State) + ": " + f.Reason, Style: term.Bad}})
		for _, e := range f.Evidence {
			facts = append(facts, term.Fact{Name: "evidence", Value: e.From + ":"})
			for line := range strings.Lines(e.Text) {
				facts = append(facts, term.Fact{Name: "  ", Value: strings.TrimRight(line, "\n")})
			}
		}
	}
	return facts
}

// firmwareText says what a component runs, and why that is not what it should.
func firmwareText(f protocol.Firmware) term.Styled {
	text := cmp.Or(f.Version, "unknown")
	if f.Component != "" {
		text = f.Component + " " + text
	}
	if f.Wanted != "" && f.Wanted != f.Version {
		text += ", should have " + f.Wanted
	}
	style := term.Plain
	if f.Reason != "" {
		text, style = text+": "+f.Reason, term.Warning
	}
	return term.Styled{Text: text, Style: style}
}

func healthText(d protocol.Device) string {
	switch {
	case d.Healthy == nil:
		return ""
	case *d.Healthy:
		return "yes"
	}
	return "no: " + d.Report.Health.Reason
}

func holdText(h *protocol.Hold) string {
	if h == nil {
		return ""
	}
	text := h.Reason
	if h.By != "" {
		text += ", by " + h.By
	}
	if !h.Until.IsZero() {
		text += ", until " + instant(h.Until)
	}
	return text
}

// instant is a time inside a sentence, day a date.
func instant(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
func day(t time.Time) string     { return t.UTC().Format("2006-01-02") }

// deviceNames completes a device.
func (c *cli) completeDevice(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	api, err := c.client()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, err := api.Devices(cmd.Context(), protocol.DeviceFilter{Pipeline: c.pipeline})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := make([]string, len(all))
	for i, d := range all {
		names[i] = d.Name
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
