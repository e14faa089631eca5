// Package backup copies a data directory, while its server works, into a
// directory of plain files, and brings it back elsewhere:
//
//	DIR/aptfleet-backup             says what this is; whoever works here locks it
//	DIR/objects/<2 hex>/<sha256>    contents, each once, under the SHA-256 of its bytes
//	DIR/backups/<id>.manifest       one backup: the files it has and their objects
//	DIR/.tmp/                       files under way; emptied by the next backup
//
// docs/backup.md describes all of it byte by byte.
//
// # One moment
//
// The database is read as it is at one moment, and the signed files of stages
// and the keys are read at the same moment, between two acts of the engine.
// Everything else that the database names was durable before it was
// committed, never changes and carries its content in its name: it is copied
// afterwards, while the server goes on. Whatever removes such files must not
// run meanwhile; release.Engine keeps a change of kind "gc" and one of kind
// "backup" apart.
//
// # What a crash leaves
//
// A manifest is written last, after one syncfs, so a backup is there whole or
// not at all. Objects without a manifest are what an interrupted backup
// leaves: the next one compares and uses them.
package backup
