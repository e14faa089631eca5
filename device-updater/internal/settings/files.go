package settings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"aptfleet/internal/atomicfile"
	"aptfleet/internal/protocol"
)

// The names in DIR and in a revision's directory.
const (
	currentLink = "current"
	jsonFile    = "config.json"
	envFile     = "config.env"
	secretsFile = "secrets"
	unfinished  = ".work" // behind the name of what is being written
)

// write makes the directory of a revision, durable and whole, unless it is there
// and has these values.
func (s *Settings) write(revision string, values map[string]any, secrets []string) (err error) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text) // sorts the keys
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(values); err != nil {
		return err
	}
	final := filepath.Join(s.Dir, revision)
	var there View
	if err := there.read(final); err == nil && len(differences(there.Values, values)) == 0 && slices.Equal(there.Secrets, secrets) {
		return nil
	}
	work := final + unfinished
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	if err := os.Mkdir(work, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(work))
		}
	}()
	for name, content := range map[string]string{
		jsonFile: text.String(), envFile: environment(revision, values), secretsFile: strings.Join(append(secrets, ""), "\n"),
	} {
		if err := atomicfile.Write(filepath.Join(work, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(final); err != nil {
		return err
	}
	if err := os.Rename(work, final); err != nil {
		return err
	}
	return atomicfile.SyncDir(s.Dir)
}

// show puts a revision into the link.
func (s *Settings) show(revision string) error {
	if _, err := os.Stat(filepath.Join(s.Dir, revision, jsonFile)); err != nil {
		return err
	}
	link := filepath.Join(s.Dir, currentLink)
	if err := os.Remove(link + unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(revision, link+unfinished); err != nil {
		return err
	}
	if err := os.Rename(link+unfinished, link); err != nil {
		return err
	}
	return atomicfile.SyncDir(s.Dir)
}

// clean removes revisions but those that are shown or were shown before, and
// what was never finished.
func (s *Settings) clean(keep ...string) error {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return fmt.Errorf("cannot clean up old configuration: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		left := strings.HasSuffix(name, unfinished) || strings.HasSuffix(name, ".tmp")
		if !left && (!revisionPattern.MatchString(name) || slices.Contains(keep, name)) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.Dir, name)); err != nil {
			return fmt.Errorf("cannot clean up old configuration: %w", err)
		}
	}
	return nil
}

// environment is the values as an environment file that systemd and sh read
// alike: in double quotes, with a backslash before what both unescape there
// (POSIX shell, 2.2.3; systemd, load_env_file). Line feeds and tabs stand for
// themselves.
func environment(revision string, values map[string]any) string {
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", `$`, `\$`)
	var b strings.Builder
	b.WriteString("# Written by device-updater: what is changed here is lost.\n")
	fmt.Fprintf(&b, "APTFLEET_CONFIG_REVISION=\"%s\"\n", revision)
	for _, key := range slices.Sorted(maps.Keys(values)) {
		fmt.Fprintf(&b, "%s=\"%s\"\n", protocol.ConfigVariable(key), quote.Replace(Text(values[key])))
	}
	return b.String()
}

// Text is a value as text: strings as they are, numbers and booleans as JSON
// has them.
func Text(value any) string {
	if text, ok := value.(string); ok {
		return text
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return "" // CheckConfigScalar let nothing else in
	}
	return string(raw)
}

// View is the configuration of a device as its programs see it.
type View struct {
	Revision string // that is shown; "": none yet
	Values   map[string]any
	Secrets  []string // the keys that are
	Applied  string   // the revision that all hooks succeeded for, in any deployment
	Error    string   // why it is not the one that is shown
}

// Keys are the keys in their order.
func (v View) Keys() []string { return slices.Sorted(maps.Keys(v.Values)) }

// Read reads what is in a directory that a Settings keeps. All of it is of one
// revision.
func Read(dir string) (v View, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot read the configuration: %w", err)
		}
	}()
	st := (&Settings{Dir: dir}).status()
	v.Applied, v.Error, v.Values = st.Applied, st.reason(), map[string]any{}
	for {
		v.Revision, err = (&Settings{Dir: dir}).current()
		if v.Revision == "" || err != nil {
			return v, err
		}
		err = v.read(filepath.Join(dir, v.Revision))
		if now, _ := (&Settings{Dir: dir}).current(); err != nil && now != v.Revision {
			continue // it was replaced, and its successor too
		}
		return v, err
	}
}

func (v *View) read(dir string) error {
	v.Values, v.Secrets = make(map[string]any), nil
	for name, use := range map[string]func([]byte) error{
		jsonFile:    func(raw []byte) error { return json.Unmarshal(raw, &v.Values) },
		secretsFile: func(raw []byte) error { v.Secrets = strings.Fields(string(raw)); return nil },
	} {
		raw, err := readBounded(filepath.Join(dir, name))
		if err == nil {
			err = use(raw)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readBounded reads a file that is at most as large as one of ours can be.
func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 16*protocol.MaxConfigTotal))
}
