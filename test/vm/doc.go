// Package vm runs devices in QEMU, with a real boot loader.
//
// It uses the emulator without hardware virtualisation, which works
// everywhere: GRUB decides within half a second, a system boots in about half
// a minute.
package vm
