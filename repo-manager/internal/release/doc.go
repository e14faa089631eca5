// Package release is what repo-manager knows and decides: pipelines, their
// components, the newest state of each (its head), snapshots, stages, how
// they move, long changes, and who did what.
//
// Engine is the only writer. It owns one goroutine through which every act
// passes, so rules are checked against what really stands and not against
// what stood when a request was read. Uploads that wait at the same moment
// share one batch: one syncfs, one database commit, one publication.
//
// # What is promised
//
// An act that returned without error is durable and published. The order
// within a batch makes it so: files are renamed into the pool, new chunks are
// written, one syncfs, one commit of the Store, then indices, and the
// InRelease last. The database is right at any moment; what a crash left
// unpublished is published by Open before anything else happens.
//
// # Time
//
// apt compares the Date of two InRelease files in whole seconds and keeps the
// newer one. So the Date of a stage grows by at least a second with each
// publication, whatever the clock says, and is part of what is committed.
// It never runs more than MaxAhead in front of the clock: publications that
// would, wait, and meanwhile gather more uploads.
//
// # What is kept
//
// A gc removes what no root keeps, beside everything else. It sees what is
// committed while it runs, and nothing of an act under way: so an act puts
// chunks and files, and commits what needs them, within one job of the writer.
//
// # Undo
//
// Promotions of a stage pile up; an undo takes the top one off. After
// promoting A, B, C the undos lead to B and then to A, and a promotion of D
// in between lies on top of what stood then. Move.Over and Stage.Standing
// hold that order.
package release
