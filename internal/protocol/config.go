package protocol

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// This file holds the configuration of devices: what server and device agree
// on, and the bodies of the API about it.

// Bounds of a device's configuration.
const (
	MaxConfigKeys  = 1000
	MaxConfigKey   = 64        // bytes of a key
	MaxConfigValue = 16 << 10  // bytes of a value
	MaxConfigTotal = 256 << 10 // bytes of all keys and values together
)

// configKey is words of lower-case letters and digits, the first of which
// begins with a letter, with . _ or - between them.
var configKey = regexp.MustCompile(`^[a-z][a-z0-9]*([._-][a-z0-9]+)*$`)

// taken are variables that shells, the C library or the service manager give a
// meaning of their own: an environment file that set them would break whoever
// reads it.
var taken = []string{
	"BASH", "CDPATH", "COLUMNS", "DIRSTACK", "EDITOR", "ENV", "EUID", "FUNCNAME", "GROUPS", "HOME", "HOSTNAME", "IFS", "LANG", "LANGUAGE", "LINENO",
	"LINES", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "LOGNAME", "MAIL", "MAINPID", "OLDPWD", "OPTARG", "OPTERR", "OPTIND", "PATH", "PPID", "PS1", "PS2", "PS3",
	"PS4", "PWD", "RANDOM", "SECONDS", "SHELL", "SHELLOPTS", "SHLVL", "TERM", "TMPDIR", "TZ", "UID", "USER",
}

// takenPrefixes are those of whole families of such variables.
var takenPrefixes = []string{"APTFLEET_", "BASH_", "CREDENTIALS_", "GCONV_", "GLIBC_", "LC_", "LD_", "MALLOC_", "NOTIFY_", "SYSTEMD_", "WATCHDOG_", "XDG_"}

// CheckConfigKey returns an error, with the rule, for what is no key of a
// configuration.
func CheckConfigKey(key string) error {
	if len(key) > MaxConfigKey || !configKey.MatchString(key) {
		return fmt.Errorf("%.80q is no key: a key is lower-case words of letters and digits with . _ or - between them, a letter first, at most %d characters", key, MaxConfigKey)
	}
	name := ConfigVariable(key)
	if slices.Contains(taken, name) || slices.ContainsFunc(takenPrefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
		return fmt.Errorf("%s cannot be a key: in the environment file it would be %s, which has a meaning of its own; say app.%s, for example", key, name, key)
	}
	return nil
}

// ConfigVariable is the name of a key in the environment file. Keys that
// differ in . _ and - alone have the same.
func ConfigVariable(key string) string {
	return strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(key))
}

// CheckConfigText returns an error for a text that an environment file cannot
// hold so that shells and systemd read it alike: control characters other than
// tabs and line feeds, what is not UTF-8, or more than MaxConfigValue bytes.
// The error does not have the text in it.
func CheckConfigText(text string) error {
	switch {
	case len(text) > MaxConfigValue:
		return fmt.Errorf("it has %d bytes, more than %d", len(text), MaxConfigValue)
	case !utf8.ValidString(text):
		return fmt.Errorf("it is not UTF-8; encode it in base64, for example")
	case strings.ContainsFunc(text, unfit):
		return fmt.Errorf("it has control characters other than tabs and line feeds; encode it in base64, for example")
	}
	return nil
}

// unfit reports what an environment file should not have in a value: control
// characters, and code points that Unicode gives to nobody (U+FDD0 to U+FDEF,
// and the last two of each plane), for which systemd refuses the whole file.
func unfit(r rune) bool {
	return r < ' ' && r != '\t' && r != '\n' || r == 0x7f || 0xfdd0 <= r && r <= 0xfdef || r&0xfffe == 0xfffe
}

// CheckConfigScalar returns an error for what is no value of a configuration:
// strings that pass CheckConfigText, finite numbers, booleans.
func CheckConfigScalar(value any) error {
	switch v := value.(type) {
	case string:
		return CheckConfigText(v)
	case bool:
		return nil
	case float64:
		if !math.IsInf(v, 0) && !math.IsNaN(v) {
			return nil
		}
	}
	return fmt.Errorf("it is neither string, number nor boolean")
}

// ConfigScope names what a value is set for.
type ConfigScope struct {
	Kind string `json:"kind"` // product, stage, device
	Name string `json:"name"`
	Keys int    `json:"keys"` // that are set for it
}

// ConfigValue is a key of a scope or, where From is set, of a device.
type ConfigValue struct {
	Key        string    `json:"key"`
	Type       string    `json:"type"` // string, integer, number, boolean, enum, secret
	Value      any       `json:"value,omitempty"`
	From       string    `json:"from,omitempty"`       // kind:name of the scope that it comes from, "default", or "" if it is missing
	By         string    `json:"by,omitempty"`         // who set it
	At         time.Time `json:"at,omitzero"`          // when
	Missing    bool      `json:"missing,omitempty"`    // the product requires it, and nobody set it
	Unreadable bool      `json:"unreadable,omitempty"` // a secret whose key the server has lost: set it again
}

// SetConfig sets a key of a scope.
type SetConfig struct {
	Type   string `json:"type,omitempty"` // "": that of the product's schema, else string
	Value  any    `json:"value"`          // a scalar; a string is read as the type
	DryRun bool   `json:"dry_run,omitempty"`
}

// ConfigSet is what was changed, or would be.
type ConfigSet struct {
	Scope     string       `json:"scope"` // kind:name
	Key       string       `json:"key"`
	Old       *ConfigValue `json:"old,omitempty"`
	New       *ConfigValue `json:"new,omitempty"` // absent: the key is not set any more
	Devices   int          `json:"devices"`       // that get a new revision
	Unchanged bool         `json:"unchanged,omitempty"`
}

// ConfigChange is one entry of a key's history.
type ConfigChange struct {
	At  time.Time    `json:"at"`
	By  string       `json:"by"`
	Old *ConfigValue `json:"old,omitempty"` // absent: it was not set
	New *ConfigValue `json:"new,omitempty"` // absent: it was unset
}

// ConfigSchema says which keys a product has.
type ConfigSchema struct {
	Product string                 `json:"product"`
	Keys    map[string]ConfigField `json:"keys"`
	By      string                 `json:"by,omitempty"`
	At      time.Time              `json:"at,omitzero"`
}

// ConfigField is what a schema says about a key.
type ConfigField struct {
	Type        string   `json:"type"`
	Description string   `json:"description,omitempty"`
	Default     any      `json:"default,omitempty"`
	Required    bool     `json:"required,omitempty"`
	Values      []string `json:"values,omitempty"`  // of an enum
	Pattern     string   `json:"pattern,omitempty"` // of a string: a regular expression that matches all of it
	Min         *float64 `json:"min,omitempty"`     // of a number or integer
	Max         *float64 `json:"max,omitempty"`
}

// ConfigSchemaSet is what setting a schema changed, or would change.
type ConfigSchemaSet struct {
	Product string `json:"product"`
	Keys    int    `json:"keys"`
	Devices int    `json:"devices"` // that get a new revision
}
