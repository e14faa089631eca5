// Package faults holds the tests that do repo-manager harm: kills at every
// phase of an upload, a promotion and an undo, kills and power cuts at random
// moments under load, input that is not what it claims to be, a full disk, many
// uploaders at once. They run the real program and speak to it over its
// listeners.
package faults
