// Package storetest holds what every store of repo-manager must do: one suite
// for each of release.Store, access.Store and fleet.Store, and an
// implementation in memory that passes them and serves as the reference.
package storetest
