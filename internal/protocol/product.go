package protocol

import "time"

// Product is what one kind of device installs.
type Product struct {
	Name         string              `json:"name"`
	Architecture string              `json:"architecture"`
	Packages     []string            `json:"packages"`            // top-level; all else comes by dependency
	Revisions    []string            `json:"revisions,omitempty"` // hardware revisions
	Modules      map[string][]string `json:"modules,omitempty"`   // more top-level packages, of devices that have the module
	Recommends   bool                `json:"recommends"`          // recommended packages count
	Created      time.Time           `json:"created"`
	Devices      int                 `json:"devices"` // of it, enrolled
}

// SetProduct changes a product; what is absent stays.
type SetProduct struct {
	Architecture *string              `json:"architecture,omitempty"`
	Packages     *[]string            `json:"packages,omitempty"`
	Revisions    *[]string            `json:"revisions,omitempty"`
	Modules      *map[string][]string `json:"modules,omitempty"`
	Recommends   *bool                `json:"recommends,omitempty"`
}

// BOM is the bill of materials of a product in a state, or the verdict that
// there is none.
type BOM struct {
	State        string       `json:"state"`
	Snapshot     string       `json:"snapshot,omitempty"` // the state's name, if it has one
	Product      string       `json:"product"`
	Modules      []string     `json:"modules"`
	Architecture string       `json:"architecture,omitempty"`
	Recommends   bool         `json:"recommends,omitempty"`
	TopLevel     []string     `json:"top_level,omitempty"`
	SHA256       string       `json:"sha256,omitempty"` // its name: of the text, "" for a verdict
	Size         int64        `json:"size,omitempty"`   // bytes of the text
	Download     int64        `json:"download,omitempty"`
	Installed    int64        `json:"installed,omitempty"`
	Packages     []BOMPackage `json:"packages"`
	Verdict      *BOMVerdict  `json:"verdict,omitempty"` // it cannot be installed
	Made         time.Time    `json:"made"`
}

// BOMPackage is one package of a bill of materials.
type BOMPackage struct {
	Name         string `json:"name"`
	Architecture string `json:"architecture"`
	Version      string `json:"version"`
	SHA256       string `json:"sha256"`
	Component    string `json:"component"`
	Source       string `json:"source"`
	Size         int64  `json:"size"`         // bytes of the .deb
	Installed    int64  `json:"installed"`    // bytes, as its control file says
	Reason       string `json:"reason"`       // "top-level", "module lte", "essential", "required", "needed by A (Depends)"
	By           string `json:"by,omitempty"` // A: one step nearer to what was asked for
}

// BOMVerdict says why a product cannot be installed.
type BOMVerdict struct {
	Summary string `json:"summary"` // one line
	Apt     string `json:"apt"`     // apt's explanation, in lines
	Dose    string `json:"dose"`    // that of dose-debcheck, or why there is none
}

// ProductDiff is what moving from one state to another changes for a product.
type ProductDiff struct {
	From        string       `json:"from"` // state id
	To          string       `json:"to"`
	Product     string       `json:"product"`
	Differences []Difference `json:"differences"`
	Download    int64        `json:"download"`       // bytes of what comes
	Installed   int64        `json:"installed"`      // bytes by which all grows; below zero it shrinks
	Changelogs  []Changelog  `json:"changelogs"`     // by source, if they were asked for
	Bugs        []string     `json:"bugs,omitempty"` // that the changelogs close, each once
	CVEs        []string     `json:"cves,omitempty"` // that they name
}

// Changelog is what a source package says about the way between two versions.
type Changelog struct {
	Source   string           `json:"source"`
	Packages []string         `json:"packages"` // of the product
	Old      string           `json:"old"`      // versions of the source
	New      string           `json:"new"`
	Back     bool             `json:"back,omitempty"` // New is lower: the entries are what is lost
	Entries  []ChangelogEntry `json:"entries"`
	Missing  string           `json:"missing,omitempty"` // why there are no entries
}

// ChangelogEntry is one version of a changelog.
type ChangelogEntry struct {
	Version string   `json:"version"`
	Text    string   `json:"text"`
	Bugs    []string `json:"bugs,omitempty"` // "#123456", "LP: #42"
	CVEs    []string `json:"cves,omitempty"`
}
