// Package bootcontrol is the boot loader of an nspawn device: it reads the two
// boot-control files, looks at which deployments have an init, and says what
// boots. It is what grub.cfg does on a device with a real boot loader, and
// both are judged by the vectors in ../testdata/loader-vectors.txt.
//
// It shares no code with the updater, on purpose: a mistake in the updater's
// idea of these bytes must show up as a device that boots the wrong thing, not
// be repeated here.
//
// The rules, in the order they are tried (docs/architecture.md, "On a
// device"):
//
//  1. committed.env unreadable, or without "committed": boot "previous" if it
//     is known and loads, else the highest-numbered deployment that has
//     /usr/lib/os-release. No trial is started.
//  2. grubenv unreadable, or "trial" empty, or "tries" not a digit 1…9, or
//     "trial" equal to "committed": boot "committed".
//  3. Otherwise write tries - 1 first, in place; if that fails, boot
//     "committed". Then boot the trial if it has its init; if it has none,
//     boot "committed": the attempt has cost one try.
//  4. "committed" has no init: boot "previous", and if that has none either,
//     the highest-numbered deployment as in rule 1.
package bootcontrol
