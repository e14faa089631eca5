package main

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"aptfleet/device-updater/internal/boot"
	"aptfleet/device-updater/internal/drift"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/term"
)

func (p *program) verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Compare what is booted with its release, file by file",
		Long: `verify reads every file of every package of the booted deployment and compares
packages with the exact list of the release, and files with what their packages
brought and what was recorded when the deployment was made. It needs neither
the daemon nor the network, and changes nothing. A timer runs it every day;
status shows what the last run found.

Exit status: 0 if it is equal to its release but for configuration files that
were changed here, 1 if it is not, or has packages of its own on top.`,
		Example: "  device-updater verify --json",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := p.verify(cmd.Context())
			if err != nil {
				return err
			}
			if p.io.JSON {
				err = p.io.PrintJSON(v)
			} else {
				err = v.print(p.io.Out)
			}
			if err == nil && !v.Equal {
				return term.Status(term.ExitFailed)
			}
			return err
		},
	}
}

// verdict is what verify says.
type verdict struct {
	Deployment int            `json:"deployment"`
	State      string         `json:"state,omitempty"`
	Snapshot   string         `json:"snapshot,omitempty"`
	Equal      bool           `json:"equal"`
	Packages   string         `json:"packages,omitempty"` // the first that is not as the list has it, and how
	Audit      string         `json:"audit,omitempty"`    // what dpkg --audit says
	Overlay    update.Overlay `json:"overlay,omitempty"`
	Files      drift.Report   `json:"files"`
}

func (p *program) verify(ctx context.Context) (verdict, error) {
	current, err := boot.CurrentOfProcess()
	if err != nil {
		return verdict{}, err
	}
	v, err := p.verifyDeployment(ctx, current)
	if err == nil {
		err = p.remember(v)
	}
	return v, err
}

// remember keeps what was found for status. Who may not write there has verified
// nevertheless, and a full disk must not keep anybody from knowing.
func (p *program) remember(v verdict) error {
	records, err := update.OpenRecords(p.updaterDir())
	if err != nil {
		return err
	}
	err = records.PutVerified(update.Verified{
		Deployment: v.Deployment, At: time.Now().UTC().Truncate(time.Second), Equal: v.Equal, Damage: len(v.Files.Damage), Unowned: len(v.Files.Unowned),
	})
	if err != nil {
		p.io.Note("%v", err)
	}
	return nil
}

func (p *program) verifyDeployment(ctx context.Context, n int) (verdict, error) {
	records, err := update.OpenRecords(p.updaterDir())
	if err != nil {
		return verdict{}, err
	}
	d, err := records.Deployment(n)
	if err != nil {
		return verdict{}, err
	}
	v := verdict{Deployment: n, State: d.State, Snapshot: d.Snapshot, Overlay: d.Overlay}
	root := filepath.Join(p.sysroot, "deployments", strconv.Itoa(n))
	if v.Packages, err = update.Mismatch(root, d); err != nil {
		return verdict{}, err
	}
	out, err := exec.CommandContext(ctx, "dpkg", "--root="+root, "--audit").CombinedOutput()
	if err != nil {
		return verdict{}, fmt.Errorf("cannot audit deployment %d: %w: %s", n, err, out)
	}
	v.Audit = strings.TrimSpace(string(out))
	if v.Files, err = update.Compare(ctx, records, root, n); err != nil {
		return verdict{}, err
	}
	v.Equal = v.Packages == "" && v.Audit == "" && len(v.Overlay) == 0 && v.Files.Clean()
	return v, nil
}

// shown is how many names of one kind people are shown; --json has all.
const shown = 10

func (v verdict) print(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "deployment %d of %s, %d files of packages compared\n", v.Deployment, release(v.Snapshot, v.State), v.Files.Files)
	if v.Packages != "" {
		fmt.Fprintf(&b, "packages: %s\n", term.Printable(v.Packages))
	}
	if v.Audit != "" {
		fmt.Fprintf(&b, "dpkg --audit: %s\n", term.Printable(v.Audit))
	}
	list := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		fmt.Fprintf(&b, "%s: %d\n", title, len(lines))
		for i, line := range lines {
			if i == shown {
				fmt.Fprintf(&b, "  and %d more\n", len(lines)-shown)
				break
			}
			fmt.Fprintf(&b, "  %s\n", term.Printable(line))
		}
	}
	var damage, config []string
	for _, d := range v.Files.Damage {
		damage = append(damage, fmt.Sprintf("%s  %s of %s", d.Path, d.Kind, strings.Join(d.Packages, ", ")))
	}
	for _, c := range v.Files.Config {
		how := "edited"
		if c.Deleted {
			how = "deleted"
		}
		config = append(config, fmt.Sprintf("%s  %s, of %s", c.Path, how, c.Package))
	}
	list("local packages on top of the release", v.Overlay.Names())
	list("files of packages that were changed", damage)
	list("files that belong to no package", v.Files.Unowned)
	list("configuration files that were changed here (allowed)", config)
	list("files that were diverted here (allowed)", v.Files.Diverted)
	list("files whose mode and owner were fixed with dpkg-statoverride (allowed)", v.Files.Overrides)
	if !v.Files.Recorded {
		b.WriteString("the files of this deployment were not recorded: only contents could be compared\n")
	}
	switch {
	case v.Equal && v.State+v.Snapshot == "":
		b.WriteString("equal to what the factory made\n")
	case v.Equal:
		b.WriteString("equal to its release\n")
	default:
		b.WriteString("not equal to its release; the next update or `device-updater rejoin` mends packages\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}
