package firmware

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"aptfleet/device-updater/internal/dropin"
	"aptfleet/device-updater/internal/hardware"
	"aptfleet/internal/deb"
)

// Dir is where a release describes its firmware: <component>.yaml for each
// component.
const Dir = "usr/lib/aptfleet/firmware.d"

// When a component gets its firmware.
const (
	PhaseTrial  = "trial"  // while the release is on trial, before its health is judged
	PhaseCommit = "commit" // after the release was committed
)

// Descriptor is what a release says about one component.
type Descriptor struct {
	Component  string        `yaml:"component"`  // as the file is called
	Hook       string        `yaml:"hook"`       // executable that knows the component: see Hook
	Reversible *bool         `yaml:"reversible"` // whether an older version may be put over a newer one
	Phase      string        `yaml:"phase"`      // PhaseTrial, or PhaseCommit; default: PhaseTrial if it is reversible
	Timeout    time.Duration `yaml:"timeout"`    // of one run of the hook; default: one minute
	Images     []Image       `yaml:"images"`
}

// Image is a firmware for some hardware revisions.
type Image struct {
	Revisions []string `yaml:"revisions"`
	File      string   `yaml:"image"`
	Version   string   `yaml:"version"`
	SHA256    string   `yaml:"sha256"` // of the file, lower-case hex; "": it is not compared
}

const (
	defaultTimeout = time.Minute
	longestTimeout = time.Hour
)

var (
	namePattern    = regexp.MustCompile(`^[a-z0-9][a-z0-9.+-]{0,63}$`)
	versionPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+~:_-]{0,63}$`)
	sumPattern     = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// Load reads the descriptors in dir, sorted by component. No directory is no
// firmware.
func Load(dir string) ([]Descriptor, error) {
	var all []Descriptor
	err := dropin.Each(dir, func(name string, text []byte) error {
		d, err := Parse(text)
		if err == nil && d.Component+".yaml" != name {
			err = fmt.Errorf("component: %q is not the name of the file", d.Component)
		}
		all = append(all, d)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read what firmware is wanted: %w", err)
	}
	return all, nil
}

// Parse reads a descriptor. An unknown key, a missing one and a value out of its
// range are errors that name the key.
func Parse(text []byte) (Descriptor, error) {
	var d Descriptor
	if err := dropin.Decode(text, &d); err != nil {
		return Descriptor{}, err
	}
	if err := d.check(); err != nil {
		return Descriptor{}, err
	}
	if d.Phase == "" {
		d.Phase = PhaseCommit
		if *d.Reversible {
			d.Phase = PhaseTrial
		}
	}
	if d.Timeout == 0 {
		d.Timeout = defaultTimeout
	}
	return d, nil
}

func (d Descriptor) check() error {
	switch {
	case !namePattern.MatchString(d.Component):
		return fmt.Errorf("component: %q is not the name of a component", d.Component)
	case !clean(d.Hook):
		return fmt.Errorf("hook: %q is not an absolute path", d.Hook)
	case d.Reversible == nil:
		return errors.New("reversible: it is needed, true or false")
	case d.Phase != "" && d.Phase != PhaseTrial && d.Phase != PhaseCommit:
		return fmt.Errorf("phase: %q is neither %s nor %s", d.Phase, PhaseTrial, PhaseCommit)
	case d.Phase == PhaseTrial && !*d.Reversible:
		return errors.New("phase: what is not reversible waits until the release is committed")
	case d.Timeout < 0 || d.Timeout > longestTimeout:
		return fmt.Errorf("timeout: %s is not within 0 and %s", d.Timeout, longestTimeout)
	case len(d.Images) == 0:
		return errors.New("images: at least one is needed")
	}
	seen := make(map[string]bool)
	for i, image := range d.Images {
		if err := image.check(*d.Reversible, seen); err != nil {
			return fmt.Errorf("images: %d: %w", i+1, err)
		}
	}
	return nil
}

// check notes in seen which revisions an image is for.
func (i Image) check(reversible bool, seen map[string]bool) error {
	switch {
	case len(i.Revisions) == 0:
		return errors.New("revisions: at least one is needed")
	case !clean(i.File):
		return fmt.Errorf("image: %q is not an absolute path", i.File)
	case !versionPattern.MatchString(i.Version):
		return fmt.Errorf("version: %q is none", i.Version)
	case i.SHA256 != "" && !sumPattern.MatchString(i.SHA256):
		return fmt.Errorf("sha256: %q is none", i.SHA256)
	}
	if _, err := deb.ParseVersion(i.Version); err != nil && !reversible {
		return fmt.Errorf("version: what is not reversible needs versions that can be compared: %w", err)
	}
	for _, revision := range i.Revisions {
		switch {
		case !hardware.Pattern.MatchString(revision):
			return fmt.Errorf("revisions: %q is no hardware revision", revision)
		case seen[revision]:
			return fmt.Errorf("revisions: %s has two images", revision)
		}
		seen[revision] = true
	}
	return nil
}

// clean reports whether a path of the release is absolute and says where it
// leads.
func clean(name string) bool {
	return path.IsAbs(name) && path.Clean(name) == name && name != "/" && !strings.ContainsRune(name, 0)
}

// For returns the image for a hardware revision; ok is false if there is none.
func (d Descriptor) For(revision string) (image Image, ok bool) {
	for _, image := range d.Images {
		if slices.Contains(image.Revisions, revision) {
			return image, true
		}
	}
	return Image{}, false
}

// supported are the revisions that have an image, in words.
func (d Descriptor) supported() string {
	var all []string
	for _, image := range d.Images {
		all = append(all, image.Revisions...)
	}
	return strings.Join(all, ", ")
}
