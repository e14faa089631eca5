//go:build !break_fsync

package faultpoint

// SkipSync makes everything that syncs files do nothing.
const SkipSync = false
