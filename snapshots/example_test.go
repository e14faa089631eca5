package snapshots_test

import (
	"context"
	"fmt"
	"strings"

	"aptfleet/snapshots"
)

// A version replaces another one; the difference between the two states is one
// package, and undoing the edit gives the first state again, by id.
func Example() {
	ctx := context.Background()
	store := &snapshots.Memory{}
	hello := func(version string) snapshots.Package {
		sum := strings.Repeat("0", 64)
		p, err := snapshots.ParsePackage([]byte("Package: hello\nVersion: " + version + "\nArchitecture: amd64\n" +
			"Filename: pool/00/" + sum + "/hello_" + version + "_amd64.deb\nSize: 1000\nSHA256: " + sum + "\n"))
		if err != nil {
			panic(err)
		}
		return p
	}
	replace := func(s snapshots.State, old, now snapshots.Package) snapshots.State {
		s, err := snapshots.Apply(ctx, store, s, snapshots.Edit{
			Component: "apps", Remove: []snapshots.Ref{old.Ref()}, Put: []snapshots.Package{now},
		})
		if err != nil {
			panic(err)
		}
		return s
	}
	empty, err := snapshots.New(ctx, store, []snapshots.Key{{Component: "apps", Architecture: "amd64"}})
	if err != nil {
		panic(err)
	}
	first := replace(empty, hello("1.9"), hello("1.9"))
	second := replace(first, hello("1.9"), hello("1.10"))
	differences, err := snapshots.Diff(ctx, store, first, second)
	if err != nil {
		panic(err)
	}
	for _, d := range differences {
		fmt.Println(d.Key, d.Name, d.Old.Version, "→", d.New.Version)
	}
	fmt.Println("undone:", replace(second, hello("1.10"), hello("1.9")).ID() == first.ID())
	// Output:
	// apps/amd64 hello 1.9 → 1.10
	// undone: true
}
