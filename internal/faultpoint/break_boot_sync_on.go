//go:build break_boot_sync

package faultpoint

// SkipBootSync leaves what the updater tells the boot loader in memory.
const SkipBootSync = true
