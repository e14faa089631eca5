package debian

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Mirror returns the base URL (without a slash at its end) of the Debian
// archive that this machine's apt installs from, and the path of the keyring
// that verifies it. The archive is expected to hold every current Debian
// release, as Debian's mirrors do.
//
// It reads /etc/apt/sources.list and /etc/apt/sources.list.d in the one-line
// and the deb822 format of sources.list(5) and takes the first enabled binary
// source of a Debian release's main component; suites for security, updates
// and backports are not archives of their own release and are passed over.
func Mirror() (url, keyring string, err error) {
	return mirrorBelow("/")
}

// mirrorBelow is Mirror for the configuration below root.
func mirrorBelow(root string) (string, string, error) {
	sources, err := readSources(root)
	if err != nil {
		return "", "", err
	}
	var found *source
	for i, s := range sources {
		if !s.isRelease() {
			continue
		}
		// Other archives use Debian's suite names too; one that is called
		// debian goes before them.
		if found == nil || !found.isNamedDebian() && s.isNamedDebian() {
			found = &sources[i]
		}
	}
	if found == nil {
		return "", "", fmt.Errorf("cannot find a Debian mirror in %s: no enabled http source of a Debian release's component main among %d sources",
			filepath.Join(root, "etc/apt"), len(sources))
	}
	keyring, err := found.keyring(root)
	if err != nil {
		return "", "", err
	}
	return strings.TrimRight(found.uri, "/"), keyring, nil
}

// Security returns the base URL of the archive that this machine's apt takes
// Debian's security updates from, and the path of the keyring that verifies it.
// It is found as that of [Mirror] is, by its suite <release>-security.
func Security() (url, keyring string, err error) { return securityBelow("/") }

func securityBelow(root string) (string, string, error) {
	sources, err := readSources(root)
	if err != nil {
		return "", "", err
	}
	for _, s := range sources {
		s.suite, _ = strings.CutSuffix(s.suite, "-security")
		if !s.isRelease() || !strings.HasSuffix(strings.TrimRight(s.uri, "/"), "security") {
			continue
		}
		keyring, err := s.keyring(root)
		return strings.TrimRight(s.uri, "/"), keyring, err
	}
	return "", "", fmt.Errorf("cannot find Debian's security archive in %s: no enabled http source of a suite <release>-security among %d sources",
		filepath.Join(root, "etc/apt"), len(sources))
}

// source is one combination of URI and suite.
type source struct {
	uri        string
	suite      string
	components []string
	signedBy   string // as configured: a path, fingerprints, a key, or ""
}

// releases are the names under which Debian publishes releases.
var releases = map[string]bool{
	"oldstable": true, "stable": true, "testing": true, "unstable": true, "sid": true,
	"bullseye": true, "bookworm": true, "trixie": true, "forky": true, "duke": true,
}

func (s source) isRelease() bool {
	if !releases[s.suite] || !strings.HasPrefix(s.uri, "http://") && !strings.HasPrefix(s.uri, "https://") {
		return false
	}
	for _, c := range s.components {
		if c == "main" {
			return true
		}
	}
	return false
}

// isNamedDebian tells whether a directory of the URI's path is called debian,
// as on Debian's mirrors and on snapshot archives.
func (s source) isNamedDebian() bool {
	u, err := url.Parse(s.uri)
	if err != nil {
		return false
	}
	for _, element := range strings.Split(u.Path, "/") {
		if element == "debian" {
			return true
		}
	}
	return false
}

// keyring prefers Debian's keyring of all releases to that of one release,
// because tests read several; a source signed by somebody else keeps its own.
func (s source) keyring(root string) (string, error) {
	own := ""
	if strings.HasPrefix(s.signedBy, "/") {
		own = filepath.Join(root, s.signedBy)
	}
	if own != "" && !strings.HasPrefix(filepath.Base(own), "debian-archive-") {
		return own, nil
	}
	candidates := []string{
		filepath.Join(root, "usr/share/keyrings/debian-archive-keyring.pgp"),
		filepath.Join(root, "usr/share/keyrings/debian-archive-keyring.gpg"),
	}
	if own != "" {
		candidates = append(candidates, own)
	}
	for _, path := range candidates {
		_, err := os.Stat(path)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("cannot read the keyring of %s: %w", s.uri, err)
		}
	}
	return "", fmt.Errorf("cannot find the keyring of %s: none of %s exists; install debian-archive-keyring", s.uri, strings.Join(candidates, ", "))
}
