// Command loader plays the boot loader of an nspawn device: it reads the
// boot-control files, counts a try if there is one, and prints what boots.
//
//	loader BOOT-CONTROL-DIR TOP-LEVEL
//
// Standard output is one line, "boot 2" or "boot 2 trial"; standard error says
// why. It exits with 1 if nothing boots and with 2 on wrong usage.
package main

import (
	"fmt"
	"io"
	"os"

	"aptfleet/test/device/bootcontrol"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) != 2 {
		fmt.Fprintln(stderr, "usage: loader BOOT-CONTROL-DIR TOP-LEVEL")
		return 2
	}
	decision, err := bootcontrol.Decide(bootcontrol.Files{BootControl: args[0], Top: args[1]})
	if err != nil {
		fmt.Fprintln(stderr, "loader:", err)
		return 1
	}
	fmt.Fprintf(stderr, "loader: boot deployment %d: %s\n", decision.Deployment, decision.Reason)
	if _, err := fmt.Fprintln(stdout, decision); err != nil {
		fmt.Fprintln(stderr, "loader: cannot print the decision:", err)
		return 1
	}
	return 0
}
