// Package device runs Aptfleet devices on this machine: real Debian systems in
// systemd-nspawn, each with its own btrfs disk, its own boot control and a
// boot loader that is a program of its own. The end-to-end tests use it, and
// so does the demonstration.
//
// A [Machine] is a directory:
//
//	DIR/disk.img        the disk: a sparse file with a btrfs file system
//	DIR/top/            its top level, mounted while the machine is attached
//	DIR/boot-control/   committed.env and grubenv
//	DIR/console.log     everything the loader, nspawn and the system printed
//	DIR/machine.json    what runs, for [Sweep]
//
// PowerOn plays a power supply: it runs the loader, boots what the loader
// says in a container, and does so again whenever the container reboots.
// PowerCut is the plug: every process dies at once, and of the disk remains
// what had been written to the image file, never what only the file system's
// memory knew. Boot control survives at once, which is the harder case for
// whoever must order the two.
//
// A machine lets go of everything it holds of the host (loop device, mount,
// processes, control group) in Close. A program that was killed before it
// could do so is cleaned up after by Sweep, which touches only what machine
// directories below the one it is given say.
package device
