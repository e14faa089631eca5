// Package settings brings the configuration of a device, as its assignment has
// it, to the programs that need it.
//
//	DIR/<revision>/config.json   the values, secrets among them, as one JSON object
//	DIR/<revision>/config.env    the same for EnvironmentFile= of systemd and for sh
//	DIR/<revision>/secrets       the keys that are secret, one a line
//	DIR/current                  a link to the revision that holds
//	DIR/status.json              which revision was applied, and what waits
//
// A revision is written whole, then its name is put into the link by one
// rename: whoever resolves the link once reads files of one revision. Then the
// hooks of the release run. Before anything can be seen of a revision the status says
// which keys it changes, so that whatever is interrupted is finished by the next
// start: hooks may run more than once for a change, never not at all.
//
// Only root reads DIR. systemd hands what is in it to services of others:
// EnvironmentFile= and LoadCredential= are read by PID 1.
package settings

import (
	"context"
	"crypto/ecdh"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"aptfleet/device-updater/internal/script"
	"aptfleet/internal/atomicfile"
	"aptfleet/internal/protocol"
	"aptfleet/internal/seal"
)

// HookDir is where a release keeps its hooks: executables, which are given the
// keys that changed as arguments, and in APTFLEET_CONFIG the directory of the
// revision. A hook that fails is run again; so each may run for a change that it
// has seen.
const HookDir = "/usr/lib/aptfleet/config.d"

// Pauses before a failed hook is run again: the first one, doubled each time,
// and the longest.
const (
	firstPause = 10 * time.Second
	maxPause   = time.Hour
)

// Settings is the configuration of one device. Its methods may be called
// concurrently; they wait for each other.
type Settings struct {
	Dir        string                           // DIR, which is made where it is absent
	Hooks      string                           // HookDir
	Deployment string                           // that is booted: hooks run anew in another one, whose /etc may be of another time
	Key        func() (*ecdh.PrivateKey, error) // the device's sealing key; asked only where there are secrets
	Limit      time.Duration                    // for one run of one hook
	Clock      func() time.Time                 // for pauses
	step       func(done string)                // tests end it there

	mu     sync.Mutex
	failed error     // of the hooks, in this process
	tries  int       // in a row that failed
	next   time.Time // when the hooks may run again
}

// hookLimit is the time that New gives one run of one hook.
const hookLimit = time.Minute

// New returns the settings of a device whose updater keeps its things in a
// directory, /sysroot/updater. deployment is what is booted, key reads the
// device's sealing key.
func New(updater, deployment string, key func() (*ecdh.PrivateKey, error)) *Settings {
	return &Settings{
		Dir: filepath.Join(updater, "config"), Hooks: HookDir, Deployment: deployment, Key: key, Limit: hookLimit, Clock: time.Now,
	}
}

// Apply makes a configuration the device's and returns the revision that is
// applied, hooks included: on an error, an older one or "". What cannot be
// decrypted or written leaves the old configuration as it was. What is applied
// already costs nothing, so that Apply is called with every look at the
// assignment: that is also what runs a failed hook again, after a pause that
// grows. Without a configuration (nil) it is Resume.
func (s *Settings) Apply(ctx context.Context, device string, config *protocol.AssignedConfig) (revision string, err error) {
	if config == nil {
		return s.Resume(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status()
	view, err := Read(s.Dir)
	if err != nil || view.Revision != config.Revision || st.Pending != nil && st.Pending.Revision != config.Revision {
		if err := s.take(device, config, &st, view.Values); err != nil {
			return s.applied(st), fmt.Errorf("cannot apply configuration %s: %w", brief(config.Revision), err)
		}
	}
	return s.settle(ctx, st)
}

// Resume finishes what was interrupted, and runs the hooks if another
// deployment was booted. It returns what Apply returns.
func (s *Settings) Resume(ctx context.Context) (revision string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settle(ctx, s.status())
}

// applied is the revision that the hooks of this deployment have succeeded for.
func (s *Settings) applied(st status) string {
	if st.Deployment != s.Deployment {
		return ""
	}
	return st.Applied
}

var revisionPattern = regexp.MustCompile(`^[0-9a-f]{8,64}$`)

// brief is a revision in a message: it may be anything.
func brief(revision string) string { return fmt.Sprintf("%.12q", revision) }

// take writes a configuration and notes what it changes of what is shown. It is
// not to be seen yet.
func (s *Settings) take(device string, config *protocol.AssignedConfig, st *status, shown map[string]any) error {
	if !revisionPattern.MatchString(config.Revision) {
		return errors.New("its revision is not a hexadecimal number")
	}
	values, err := s.open(device, config)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	// What a power cut left may be what there is no room for.
	keep := []string{config.Revision, st.Previous}
	if current, err := s.current(); err == nil {
		keep = append(keep, current)
	}
	if st.Pending != nil {
		keep = append(keep, st.Pending.Revision)
	}
	if err := s.clean(keep...); err != nil {
		return err
	}
	if err := s.write(config.Revision, values, slices.Sorted(maps.Keys(config.Secrets))); err != nil {
		return err
	}
	s.did("write the revision")
	changed := make(map[string]bool)
	if st.Pending != nil {
		for _, key := range st.Pending.Changed {
			changed[key] = true
		}
	}
	for _, key := range differences(shown, values) {
		changed[key] = true
	}
	st.Pending = &pending{Revision: config.Revision, Changed: slices.Sorted(maps.Keys(changed))}
	s.failed, s.tries, s.next = nil, 0, time.Time{}
	return s.keep(*st)
}

// open checks a configuration and decrypts its secrets.
func (s *Settings) open(device string, config *protocol.AssignedConfig) (map[string]any, error) {
	values := make(map[string]any, len(config.Values)+len(config.Secrets))
	maps.Copy(values, config.Values)
	if len(config.Secrets) > 0 {
		key, err := s.Key()
		if err != nil {
			return nil, err
		}
		for _, name := range slices.Sorted(maps.Keys(config.Secrets)) {
			if _, twice := values[name]; twice {
				return nil, fmt.Errorf("%.80q is a value and a secret", name)
			}
			secret, err := seal.Open(key, device, name, config.Secrets[name])
			if err != nil {
				return nil, err
			}
			values[name] = string(secret)
		}
	}
	if len(values) > protocol.MaxConfigKeys {
		return nil, fmt.Errorf("it has %d keys, more than %d", len(values), protocol.MaxConfigKeys)
	}
	variables := make(map[string]string, len(values))
	size := 0
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if err := protocol.CheckConfigKey(key); err != nil {
			return nil, err
		}
		if err := protocol.CheckConfigScalar(values[key]); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		name := protocol.ConfigVariable(key)
		if other, ok := variables[name]; ok {
			return nil, fmt.Errorf("%s and %s would both be %s in the environment file", other, key, name)
		}
		variables[name] = key
		size += len(key) + len(Text(values[key]))
	}
	if size > protocol.MaxConfigTotal {
		return nil, fmt.Errorf("it has %d bytes, more than %d", size, protocol.MaxConfigTotal)
	}
	return values, nil
}

// differences lists the keys whose values differ.
func differences(a, b map[string]any) []string {
	var keys []string
	for key, value := range a {
		if other, ok := b[key]; !ok || !reflect.DeepEqual(value, other) {
			keys = append(keys, key)
		}
	}
	for key := range b {
		if _, ok := a[key]; !ok {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// settle shows what was taken, runs the hooks that it wants and notes that it
// is applied.
func (s *Settings) settle(ctx context.Context, st status) (string, error) {
	current, err := s.current()
	if err != nil {
		return s.applied(st), fmt.Errorf("cannot read the configuration: %w", err)
	}
	if p := st.Pending; p != nil && p.Revision != current {
		if err := s.show(p.Revision); err != nil {
			return s.applied(st), fmt.Errorf("cannot apply configuration %s: %w", brief(p.Revision), err)
		}
		st.Previous, current = current, p.Revision
		s.did("show the revision")
	}
	if current == "" || st.Pending == nil && s.applied(st) == current {
		return s.applied(st), nil
	}
	view, err := Read(s.Dir)
	if err != nil {
		return s.applied(st), err
	}
	if st.Pending == nil || st.Deployment != s.Deployment {
		// What the hooks of another deployment did is not in the /etc of this one.
		all := slices.Collect(maps.Keys(view.Values))
		if st.Pending != nil {
			all = append(all, st.Pending.Changed...)
		}
		slices.Sort(all)
		st.Pending = &pending{Revision: current, Changed: slices.Compact(all), Error: st.reason()}
	}
	if len(st.Pending.Changed) > 0 {
		if err := s.hooks(ctx, view, &st); err != nil {
			return s.applied(st), fmt.Errorf("cannot apply configuration %s: %w", brief(current), err)
		}
	}
	s.did("run the hooks")
	st.Applied, st.Deployment, st.Pending = current, s.Deployment, nil
	if err := s.keep(st); err != nil {
		return "", fmt.Errorf("cannot note that configuration %s is applied: %w", brief(current), err)
	}
	s.did("note it")
	return current, s.clean(current, st.Previous)
}

// hooks runs all hooks, unless one failed a moment ago.
func (s *Settings) hooks(ctx context.Context, view View, st *status) error {
	if now := s.Clock(); s.failed != nil && now.Before(s.next) && s.next.Sub(now) <= maxPause {
		return s.failed
	}
	all, err := script.Executables(s.Hooks)
	if err != nil {
		return fmt.Errorf("cannot read the hooks: %w", err)
	}
	env := []string{"APTFLEET_CONFIG=" + filepath.Join(s.Dir, view.Revision), "APTFLEET_CONFIG_REVISION=" + view.Revision}
	for _, hook := range all {
		err := script.Run(ctx, s.Limit, env, hook, st.Pending.Changed...)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return s.failing(fmt.Errorf("hook %s: %s", filepath.Base(hook), view.hide(err.Error())), st)
		}
		s.did("run hook " + filepath.Base(hook))
	}
	s.failed, s.tries, s.next = nil, 0, time.Time{}
	return nil
}

// failing remembers that a hook failed, and when it may run again.
func (s *Settings) failing(err error, st *status) error {
	pause := maxPause
	if s.tries < 10 {
		pause = min(firstPause<<s.tries, maxPause)
	}
	s.failed, s.tries, s.next = err, s.tries+1, s.Clock().Add(pause)
	if st.Pending.Error != err.Error() {
		st.Pending.Error = err.Error()
		return errors.Join(err, s.keep(*st))
	}
	return err
}

// hide takes secrets out of a text that goes to the server. Its beginning may
// have been cut off, in the midst of one.
func (v View) hide(text string) string {
	const least = 4 // a shorter one is in many words
	for _, key := range v.Secrets {
		secret, _ := v.Values[key].(string)
		for line := range strings.Lines(secret) {
			line = strings.TrimSpace(line)
			if len(line) < least {
				continue
			}
			text = strings.ReplaceAll(text, line, "(secret)")
			for i := range line {
				if end := line[i:]; len(end) >= least && strings.HasPrefix(text, end) {
					text = "(secret)" + text[len(end):]
					break
				}
			}
		}
	}
	return text
}

func (s *Settings) did(what string) {
	if s.step != nil {
		s.step(what)
	}
}

// status is what DIR/status.json says.
type status struct {
	Applied    string   `json:"applied,omitempty"`    // the revision that all hooks succeeded for
	Deployment string   `json:"deployment,omitempty"` // in which
	Previous   string   `json:"previous,omitempty"`   // revision that was shown before: somebody may still read it
	Pending    *pending `json:"pending,omitempty"`
}

// pending is a revision that is not applied yet.
type pending struct {
	Revision string   `json:"revision"`
	Changed  []string `json:"changed"` // keys since the applied one
	Error    string   `json:"error,omitempty"`
}

func (st status) reason() string {
	if st.Pending == nil {
		return ""
	}
	return st.Pending.Error
}

const statusFile = "status.json"

// status reads it. One that cannot be read is none: then all hooks run for all
// keys.
func (s *Settings) status() (st status) {
	raw, err := os.ReadFile(filepath.Join(s.Dir, statusFile))
	if err != nil || json.Unmarshal(raw, &st) != nil || st.Pending != nil && !revisionPattern.MatchString(st.Pending.Revision) {
		return status{}
	}
	return st
}

func (s *Settings) keep(st status) error {
	raw, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(s.Dir, statusFile), append(raw, '\n'), 0o600); err != nil {
		return err
	}
	s.did("keep the status")
	return nil
}

// current is the revision that is shown, "" if there is none.
func (s *Settings) current() (string, error) {
	target, err := os.Readlink(filepath.Join(s.Dir, currentLink))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return target, err
}
