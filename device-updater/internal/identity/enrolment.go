package identity

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"aptfleet/internal/atomicfile"
	"aptfleet/internal/protocol"
	"aptfleet/internal/sign"
)

// Enrolment is what this device was enrolled as, and by whom. AssignmentKey,
// ArchiveKey and CA are pinned: only another enrolment as another device
// changes them.
type Enrolment struct {
	Server        string    `json:"server"` // URL of the server's public listener
	Key           string    `json:"key"`    // KeyID of the device's key that was enrolled
	Device        string    `json:"device"` // its name
	Pipeline      string    `json:"pipeline"`
	Product       string    `json:"product"`
	AssignmentKey []byte    `json:"assignment_key"`     // Ed25519
	Archive       string    `json:"archive"`            // URL above /<pipeline>/
	ArchiveKey    string    `json:"archive_key"`        // ASCII-armoured OpenPGP certificate
	Password      string    `json:"password,omitempty"` // reads the archive as user Device; "": it is public
	CA            string    `json:"ca,omitempty"`       // PEM; "": that of a public authority
	Serial        string    `json:"serial"`             // number it was enrolled under
	Insecure      bool      `json:"insecure,omitempty"` // plain HTTP was allowed
	Enrolled      time.Time `json:"enrolled"`           // the device's clock
}

var (
	namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	wordPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9.+-]{0,63}$`)
)

// Check returns what is wrong with an enrolment. It comes from the network and
// goes into URLs and files of apt.
func (e Enrolment) Check() error {
	switch {
	case !namePattern.MatchString(e.Device):
		return fmt.Errorf("%q is not the name of a device", e.Device)
	case !wordPattern.MatchString(e.Pipeline):
		return fmt.Errorf("%q is not the name of a pipeline", e.Pipeline)
	case !wordPattern.MatchString(e.Product):
		return fmt.Errorf("%q is not the name of a product", e.Product)
	case len(e.AssignmentKey) != ed25519.PublicKeySize:
		return fmt.Errorf("its assignment key has %d bytes, not %d", len(e.AssignmentKey), ed25519.PublicKeySize)
	case strings.ContainsFunc(e.Password, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return errors.New("its password has characters that apt cannot read")
	}
	for _, at := range []string{e.Server, e.Archive} {
		if err := CheckURL(at, e.Insecure); err != nil {
			return err
		}
	}
	if err := sign.CheckKeyring([]byte(e.ArchiveKey)); err != nil {
		return fmt.Errorf("its archive key: %w", err)
	}
	return nil
}

// CheckURL returns why a server or an archive cannot be at a URL. Plain HTTP
// must be allowed: everything else is decided by what is said over it.
func CheckURL(at string, insecure bool) error {
	u, err := url.Parse(at)
	switch {
	case err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || strings.ContainsAny(at, " []\t\n\"'\\"):
		return fmt.Errorf("%q is not the URL of a server", at)
	case u.Scheme == "http" && !insecure:
		return fmt.Errorf("%s is not encrypted, and that was not allowed", at)
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%q is not an http or https URL", at)
	}
	return nil
}

// Enrolment returns what the device was enrolled as; ok is false if it was not.
func (d Dir) Enrolment() (e Enrolment, ok bool, err error) {
	text, err := os.ReadFile(d.file(enrolmentFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Enrolment{}, false, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &e)
	}
	if err == nil {
		err = e.Check()
	}
	if err != nil {
		return Enrolment{}, false, &Damaged{d.file(enrolmentFile), err}
	}
	return e, true, nil
}

// PutEnrolment keeps e durably, and beside it what apt reads as files. A token
// is used up then. The answer is in force when enrolment.json is there.
func (d Dir) PutEnrolment(e Enrolment) error {
	if err := e.Check(); err != nil {
		return fmt.Errorf("cannot keep the enrolment: %w", err)
	}
	text, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot keep the enrolment: %w", err)
	}
	if err := atomicfile.Write(d.file(enrolmentFile), append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("cannot keep the enrolment: %w", err)
	}
	if err := d.Export(e); err != nil {
		return err
	}
	if err := os.Remove(d.file(tokenFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot delete the token, which is used up: %w", err)
	}
	return nil
}

// Export writes what apt reads as files: the archive's key and the authority.
// It may be repeated.
func (d Dir) Export(e Enrolment) error {
	for name, text := range map[string]string{archiveKeyFile: e.ArchiveKey, caFile: e.CA} {
		have, err := os.ReadFile(d.file(name))
		switch {
		case err == nil && string(have) == text, errors.Is(err, fs.ErrNotExist) && text == "":
			continue
		case text == "":
			err = os.Remove(d.file(name))
		default:
			err = atomicfile.Write(d.file(name), []byte(text), 0o644)
		}
		if err != nil {
			return fmt.Errorf("cannot keep the enrolment: %w", err)
		}
	}
	return nil
}

// ArchiveKey is the path of the pinned archive key, armoured.
func (d Dir) ArchiveKey() string { return d.file(archiveKeyFile) }

// CA is the path of the pinned authority. It exists if the enrolment has one.
func (d Dir) CA() string { return d.file(caFile) }

// Same returns what an answer says otherwise than what is pinned, "" for
// nothing. The password and where the archive lies may change.
func (e Enrolment) Same(other Enrolment) string {
	for _, pinned := range []struct{ what, was, is string }{
		{"name", e.Device, other.Device}, {"pipeline", e.Pipeline, other.Pipeline}, {"product", e.Product, other.Product},
		{"assignment key", protocol.KeyID(e.AssignmentKey), protocol.KeyID(other.AssignmentKey)},
		{"archive key", e.ArchiveKey, other.ArchiveKey}, {"certificate authority", e.CA, other.CA}, {"device key", e.Key, other.Key},
	} {
		if pinned.was != pinned.is {
			return pinned.what
		}
	}
	return ""
}

// Token returns the one-time token that the factory left, "" if there is none.
func (d Dir) Token() (string, error) { return d.word(tokenFile) }

// FactorySerial returns the serial number that the factory wrote, "" for none.
func (d Dir) FactorySerial() (string, error) { return d.word(serialFile) }

// word reads a file of one word.
func (d Dir) word(name string) (string, error) {
	text, err := os.ReadFile(d.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot read %s: %w", d.file(name), err)
	}
	word := strings.TrimSpace(string(text))
	if word == "" || len(word) > 512 || strings.ContainsFunc(word, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", fmt.Errorf("cannot read %s: it is not one line of text", d.file(name))
	}
	return word, nil
}
