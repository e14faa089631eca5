// Package storetest holds what every store of repo-manager must do: one suite
// for each of release.Store, access.Store, fleet.Store and configuration.Store,
// and an implementation in memory that passes them and serves as the reference.
package storetest
