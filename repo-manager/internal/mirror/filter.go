package mirror

import (
	"aptfleet/internal/deb"
	"aptfleet/snapshots"
)

// filter tells whether a package is one that was asked for.
type filter func(deb.Stanza) bool

// parseFilter reads a package query.
func parseFilter(text string) (filter, error) {
	query, err := snapshots.ParseQuery(text)
	if err != nil {
		return nil, err
	}
	return func(s deb.Stanza) bool {
		return query.Takes(snapshots.Package{
			Name: s.Get("Package"), Version: s.Get("Version"), Architecture: s.Get("Architecture"), Stanza: s.Bytes(),
		})
	}, nil
}
