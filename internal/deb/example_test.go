package deb_test

import (
	"fmt"

	"aptfleet/internal/deb"
)

func ExampleCompare() {
	fmt.Println(deb.Compare("1.2.3~rc1", "1.2.3") < 0)
	fmt.Println(deb.Compare("1.10", "1.9") > 0)
	fmt.Println(deb.Satisfies("2:1.0-1", ">=", "1.5"))
	// Output:
	// true
	// true
	// true
}
