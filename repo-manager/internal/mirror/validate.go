package mirror

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	"aptfleet/internal/deb"
	"aptfleet/internal/sign"
	"aptfleet/repo-manager/internal/release"
)

// Validate refuses a mirror that no update could ever fill. verb says what is
// being done to it: "create", "change".
func Validate(verb, name string, config release.MirrorConfig) error {
	var err error
	for _, s := range config.Suites {
		_, bad := suiteURL(s)
		err = cmp.Or(err, bad)
		for _, component := range s.Components {
			if bad := localPath(component); bad != nil {
				err = cmp.Or(err, fmt.Errorf("the upstream component %q: %w", component, bad))
			}
		}
		if len(s.Keyring) > 0 {
			err = cmp.Or(err, sign.CheckKeyring(s.Keyring))
		}
	}
	for _, wanted := range config.Packages {
		err = cmp.Or(err, deb.ValidPackageName(wanted))
	}
	if config.Filter != "" {
		_, bad := parseFilter(config.Filter)
		err = cmp.Or(err, bad)
	}
	if err != nil {
		return &release.Error{Code: release.Invalid, Text: fmt.Sprintf("cannot %s mirror %s: %v", verb, name, err), Hint: "repo-manager mirror create --help", Err: err}
	}
	return nil
}

// suiteURL returns where the archive of a suite is.
func suiteURL(s release.MirrorSuite) (*url.URL, error) {
	base, err := url.Parse(s.URL)
	if err != nil {
		return nil, fmt.Errorf("cannot mirror %q: %w", s.URL, err)
	}
	if base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("cannot mirror %q: want an http or https URL", s.URL)
	}
	if err := localPath(s.Suite); err != nil {
		return nil, fmt.Errorf("cannot mirror suite %q: %w", s.Suite, err)
	}
	return base, nil
}

// localPath refuses what would lead out of the archive.
func localPath(name string) error {
	if name == "" || name != path.Clean(name) || strings.HasPrefix(name, "/") || name == ".." || strings.HasPrefix(name, "../") {
		return errors.New("it is not a plain path below the archive")
	}
	return nil
}
