package backup

import (
	"fmt"
	"testing"
)

// BenchmarkUnchanged is a backup of 5,000 packages of which nothing changed
// since the last one. Its time follows the number of files, not their bytes.
func BenchmarkUnchanged(b *testing.B) {
	const packages = 5000
	w := newWorld(b)
	var names []string
	for i := range packages {
		names = append(names, fmt.Sprintf("package%04d", i))
	}
	w.add(names...)
	w.make()
	for b.Loop() {
		if made := w.make(); made.NewObjects != 0 {
			b.Fatalf("%d new objects", made.NewObjects)
		}
	}
}
