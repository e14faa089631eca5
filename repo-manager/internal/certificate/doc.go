// Package certificate holds what a server's TLS listeners present: the
// certificate of files that somebody else renews, or one that the server
// issues itself, from an authority (CA) of its own.
//
// A Keeper always has a certificate to present, and exchanges it while the
// server runs: when the files change, before an issued one expires, when the
// server gets other names. One that cannot be used never takes the place of
// one that can.
//
// The CA is made once and lives as long as the archive: devices know it by its
// fingerprint (see package tlspin). What it issues is short-lived, its key is
// only in memory, and another one can be issued at any moment.
package certificate
