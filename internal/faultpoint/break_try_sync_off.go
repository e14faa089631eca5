//go:build !break_try_sync

package faultpoint

// SkipTrySync makes the updater name a deployment to the boot loader that is
// not on the disk yet.
const SkipTrySync = false
