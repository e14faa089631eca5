package update

import "time"

// Verified is what the last comparison of a deployment with its release found.
type Verified struct {
	Deployment int       `json:"deployment"`
	At         time.Time `json:"at"`
	Equal      bool      `json:"equal"`
	Damage     int       `json:"damage"`  // files of packages that were changed
	Unowned    int       `json:"unowned"` // files and directories that belong to no package
}

const verifiedRecord = "verified.json"

// Verified returns the last comparison; of deployment 0 if there was none.
func (r Records) Verified() (Verified, error) {
	var v Verified
	err := r.read(verifiedRecord, &v)
	return v, err
}

// PutVerified keeps v.
func (r Records) PutVerified(v Verified) error { return r.write(verifiedRecord, v) }
