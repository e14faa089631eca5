// Package config reads the device's configuration file.
package config

import (
	"bufio"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"

	"aptfleet/device-updater/internal/window"
	"aptfleet/internal/deb"
)

// DefaultPath is where the file lies unless --config says otherwise.
const DefaultPath = "/etc/aptfleet/device.yaml"

// Config is what a device's owner decides. docs/architecture.md shows the
// file.
type Config struct {
	Server       string        `mapstructure:"server"`       // URL of the server that this device belongs to; "": none, or it was enrolled by hand
	CA           string        `mapstructure:"ca"`           // file with the authority of the server's certificate; "": a token names it, or it is a public one
	Insecure     bool          `mapstructure:"insecure"`     // the server may be at an http URL
	Token        string        `mapstructure:"token"`        // for enrolment, once
	Serial       string        `mapstructure:"serial"`       // serial number; "": the factory or the hardware says it
	Revision     string        `mapstructure:"revision"`     // hardware revision; "": the factory says it
	Product      string        `mapstructure:"product"`      // enrolment must be for this one; "": whatever the server says
	Archive      string        `mapstructure:"archive"`      // URL above /<pipeline>/<stage>/
	Pipeline     string        `mapstructure:"pipeline"`     // the product line
	Distribution string        `mapstructure:"distribution"` // below dists/; default: the release's code name
	Follow       string        `mapstructure:"follow"`       // a stage, or snapshot:<id>, or state:<id>, or FollowAssignment; "": see Resolve
	Components   []string      `mapstructure:"components"`   // of the pipeline, that apt reads
	Keyring      string        `mapstructure:"keyring"`      // file with the archive key
	Packages     []string      `mapstructure:"packages"`     // top-level packages
	Poll         time.Duration `mapstructure:"poll"`         // how often to check; 0: on request only
	Reboot       string        `mapstructure:"reboot"`       // RebootAuto or RebootManual
	Window       string        `mapstructure:"window"`       // when a staged deployment is booted by itself, as package window reads it; "": always
	Keep         int           `mapstructure:"keep"`         // deployments that stay: the booted, the previous, and the newest others; pinned ones besides
	Inhibit      Inhibit       `mapstructure:"inhibit"`
	Trial        Trial         `mapstructure:"trial"`
	Watchdog     Watchdog      `mapstructure:"watchdog"`
	Hooks        Hooks         `mapstructure:"hooks"`
}

// Hooks says how far the hooks of a release may put off another one.
type Hooks struct {
	Timeout time.Duration `mapstructure:"timeout"` // each hook is killed after that
	Retries int           `mapstructure:"retries"` // how often they may want to be asked later
	Wait    time.Duration `mapstructure:"wait"`    // and for how long in all
}

// Trial says how a new deployment proves itself.
type Trial struct {
	Tries   int           `mapstructure:"tries"`   // boots, 1 to 9
	Timeout time.Duration `mapstructure:"timeout"` // PID 1 ends a boot that was not committed by then
	Observe time.Duration `mapstructure:"observe"` // health must hold that long without a break
}

// Watchdog says how a hardware watchdog is used, where there is one.
type Watchdog struct {
	When    string        `mapstructure:"when"`    // WatchdogTrial, WatchdogAlways or WatchdogNever
	Timeout time.Duration `mapstructure:"timeout"` // after which it resets a machine that hangs
}

// When a hardware watchdog is served. Never leaves it to the administrator.
const (
	WatchdogTrial  = "trial"
	WatchdogAlways = "always"
	WatchdogNever  = "never"
)

// Inhibit says what locks of applications may do.
type Inhibit struct {
	Max time.Duration `mapstructure:"max"` // how long at most they keep a staged deployment from being booted; 0: not at all
}

// FollowAssignment is to run what the server assigns. Archive, pipeline,
// distribution, components and packages come from the server then, and the
// keyring too unless the configuration has one.
const FollowAssignment = "assignment"

// Whether a staged deployment is booted by itself.
const (
	RebootAuto   = "auto"
	RebootManual = "manual"
)

// Of deployments there are always the booted one and the one to go back to.
const (
	minKeep = 2
	maxKeep = 20
)

// maxInhibit is how long a lock may be waited for: a device that is never
// rebooted is never updated.
const maxInhibit = 7 * 24 * time.Hour

var (
	wordPattern   = regexp.MustCompile(`^[a-z0-9][a-z0-9.+-]*$`)
	followPattern = regexp.MustCompile(`^([a-z0-9][a-z0-9-]*|snapshot:[0-9]{8}T[0-9]{6}Z|state:[0-9a-f]{64})$`)
)

// Load reads the file at path. A key that does not exist, a value of the wrong
// type and a value out of its range are errors that name the key.
func Load(path string) (Config, error) {
	v := viper.New()
	v.SetConfigFile(path)
	v.SetConfigType("yaml")
	v.SetDefault("poll", "1m")
	v.SetDefault("reboot", RebootAuto)
	v.SetDefault("keep", minKeep)
	v.SetDefault("inhibit.max", "1h")
	v.SetDefault("trial.tries", 3)
	// An uplink may take four minutes, and the boot some time of its own.
	v.SetDefault("trial.timeout", "10m")
	v.SetDefault("trial.observe", "30s")
	v.SetDefault("watchdog.when", WatchdogTrial)
	v.SetDefault("watchdog.timeout", "1m")
	v.SetDefault("hooks.timeout", "1m")
	v.SetDefault("hooks.retries", 50)
	v.SetDefault("hooks.wait", "24h")
	if err := v.ReadInConfig(); err != nil {
		return Config{}, fmt.Errorf("cannot read configuration %s: %s", path, oneLine(err))
	}
	var c Config
	strict := func(d *mapstructure.DecoderConfig) { d.WeaklyTypedInput = false }
	durations := viper.DecodeHook(mapstructure.StringToTimeDurationHookFunc())
	if err := v.UnmarshalExact(&c, durations, strict); err != nil {
		return Config{}, fmt.Errorf("cannot read configuration %s: %s", path, oneLine(err))
	}
	if err := c.check(); err != nil {
		return Config{}, fmt.Errorf("cannot use configuration %s: %w", path, err)
	}
	c.Archive, c.Server = strings.TrimRight(c.Archive, "/"), strings.TrimRight(c.Server, "/")
	return c, nil
}

// oneLine drops the decoder's heading and list marks.
func oneLine(err error) string {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		var parts []string
		for _, e := range joined.Unwrap() {
			parts = append(parts, e.Error())
		}
		return strings.Join(parts, "; ")
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}

// Resolve decides what is followed where the configuration does not say: what
// the server assigns, if there is one.
func (c Config) Resolve(enrolled bool) (Config, error) {
	if c.Follow == "" && !enrolled && c.Server == "" {
		return c, errors.New("cannot use the configuration: it names neither what to follow nor a server")
	}
	if c.Follow == "" {
		c.Follow = FollowAssignment
	}
	return c, nil
}

func (c Config) check() error {
	if err := c.checkServer(); err != nil {
		return err
	}
	if c.Follow == "" || c.Follow == FollowAssignment {
		return c.checkCommon()
	}
	if err := c.checkBase(); err != nil {
		return err
	}
	return c.checkCommon()
}

var serialPattern = regexp.MustCompile(`^[!-~]{1,64}$`)

func (c Config) checkServer() error {
	u, err := url.Parse(c.Server)
	switch {
	case c.Server == "":
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.User != nil || strings.ContainsAny(c.Server, " []\t\"'"):
		return fmt.Errorf("server: %q is not an http or https URL", c.Server)
	case u.Scheme == "http" && !c.Insecure:
		return fmt.Errorf("server: %q is not encrypted; insecure: true allows that, for test networks", c.Server)
	}
	switch {
	case c.CA != "" && !filepath.IsAbs(c.CA):
		return fmt.Errorf("ca: %q is not an absolute path", c.CA)
	case c.Serial != "" && !serialPattern.MatchString(c.Serial):
		return fmt.Errorf("serial: %q is not a serial number", c.Serial)
	case c.Product != "" && !wordPattern.MatchString(c.Product):
		return fmt.Errorf("product: %q is not a product's name", c.Product)
	}
	return nil
}

// checkBase checks what is needed to follow a base of an archive.
func (c Config) checkBase() error {
	u, err := url.Parse(c.Archive)
	switch {
	case err != nil:
		return fmt.Errorf("archive: %w", err)
	case (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.User != nil:
		return fmt.Errorf("archive: %q is not an http or https URL", c.Archive)
	case strings.ContainsAny(c.Archive, " []\t\"'"):
		return fmt.Errorf("archive: %q cannot stand in apt's sources", c.Archive)
	case !wordPattern.MatchString(c.Pipeline):
		return fmt.Errorf("pipeline: %q is not a pipeline's name", c.Pipeline)
	case !followPattern.MatchString(c.Follow):
		return fmt.Errorf("follow: %q is neither a stage nor snapshot:<id> nor state:<id>", c.Follow)
	case len(c.Components) == 0:
		return errors.New("components: at least one is needed")
	case len(c.Packages) == 0:
		return errors.New("packages: at least one is needed, else everything would leave")
	case c.Keyring == "":
		return errors.New("keyring: it is needed")
	}
	return nil
}

// checkCommon checks what counts whatever is followed.
func (c Config) checkCommon() error {
	switch {
	case c.Distribution != "" && !wordPattern.MatchString(c.Distribution):
		return fmt.Errorf("distribution: %q is not a distribution's name", c.Distribution)
	case c.Keyring != "" && (!filepath.IsAbs(c.Keyring) || strings.ContainsAny(c.Keyring, " \t\n")):
		return fmt.Errorf("keyring: %q is not an absolute path", c.Keyring)
	case c.Poll < 0:
		return fmt.Errorf("poll: %s is negative", c.Poll)
	case c.Reboot != RebootAuto && c.Reboot != RebootManual:
		return fmt.Errorf("reboot: %q is neither %s nor %s", c.Reboot, RebootAuto, RebootManual)
	case c.Keep < minKeep || c.Keep > maxKeep:
		return fmt.Errorf("keep: %d is not within %d to %d deployments", c.Keep, minKeep, maxKeep)
	case c.Inhibit.Max < 0 || c.Inhibit.Max > maxInhibit:
		return fmt.Errorf("inhibit.max: %s is not within 0 and %s", c.Inhibit.Max, maxInhibit)
	case c.Trial.Tries < 1 || c.Trial.Tries > 9:
		return fmt.Errorf("trial.tries: %d is not within 1 to 9", c.Trial.Tries)
	case c.Trial.Timeout < 10*time.Second:
		return fmt.Errorf("trial.timeout: %s is less than 10s", c.Trial.Timeout)
	case c.Trial.Observe < 0 || c.Trial.Observe > c.Trial.Timeout*3/4:
		return fmt.Errorf("trial.observe: %s is not within 0 and three quarters of trial.timeout", c.Trial.Observe)
	case c.Watchdog.When != WatchdogTrial && c.Watchdog.When != WatchdogAlways && c.Watchdog.When != WatchdogNever:
		return fmt.Errorf("watchdog.when: %q is neither %s nor %s nor %s", c.Watchdog.When, WatchdogTrial, WatchdogAlways, WatchdogNever)
	case c.Watchdog.Timeout < 10*time.Second || c.Watchdog.Timeout > time.Hour:
		return fmt.Errorf("watchdog.timeout: %s is not within 10s and 1h", c.Watchdog.Timeout)
	case c.Hooks.Timeout < time.Second || c.Hooks.Timeout > time.Hour:
		return fmt.Errorf("hooks.timeout: %s is not within 1s and 1h", c.Hooks.Timeout)
	case c.Hooks.Retries < 0 || c.Hooks.Wait < 0:
		return fmt.Errorf("hooks: %d retries in %s are negative", c.Hooks.Retries, c.Hooks.Wait)
	}
	if _, err := window.Parse(c.Window); err != nil {
		return fmt.Errorf("window: %w", err)
	}
	for _, name := range c.Components {
		if !wordPattern.MatchString(name) {
			return fmt.Errorf("components: %q is not a component's name", name)
		}
	}
	for _, name := range c.Packages {
		if err := deb.ValidPackageName(name); err != nil {
			return fmt.Errorf("packages: %w", err)
		}
	}
	return nil
}

// Base is the path of what the device follows below the archive:
// <pipeline>/<stage>, <pipeline>/snapshots/<id> or <pipeline>/states/<id>.
func (c Config) Base() string {
	if id, ok := strings.CutPrefix(c.Follow, "snapshot:"); ok {
		return c.Pipeline + "/snapshots/" + id
	}
	if id, ok := strings.CutPrefix(c.Follow, "state:"); ok {
		return c.StateBase(id)
	}
	return c.Pipeline + "/" + c.Follow
}

// StateBase is the path of a state's own base below the archive.
func (c Config) StateBase(state string) string { return c.Pipeline + "/states/" + state }

// CodeName returns VERSION_CODENAME of an os-release file (os-release(5)),
// which names the distribution unless the configuration does.
func CodeName(osRelease string) (string, error) {
	f, err := os.Open(osRelease)
	if err != nil {
		return "", fmt.Errorf("cannot tell the distribution: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "VERSION_CODENAME="); ok {
			if name = strings.Trim(name, `"'`); wordPattern.MatchString(name) {
				return name, nil
			}
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("cannot tell the distribution: %w", err)
	}
	return "", fmt.Errorf("cannot tell the distribution: %s has no VERSION_CODENAME; set `distribution` in the configuration", osRelease)
}
