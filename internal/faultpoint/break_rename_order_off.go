//go:build !break_rename_order

package faultpoint

// RenameFirst makes a stage's InRelease move before the index files that it
// names are there.
const RenameFirst = false
