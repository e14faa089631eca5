package rootfs

// CopyTree copies as keeping a unit does.
func CopyTree(from, to string) error { return newCopier().tree(from, to) }

// SeedTree copies as seeding does.
func SeedTree(from, to string) error {
	s := seeder{copier: newCopier(), known: map[string]bool{}}
	return s.tree(from, to, "x", func(string) bool { return false })
}

// WithCut returns u with something that happens between any two acts of Settle.
func (u Units) WithCut(cut func()) Units {
	u.cut = cut
	return u
}

// PlaceName is the name of a directory below state/.
var PlaceName = placeName
