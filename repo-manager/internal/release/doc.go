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
// within a batch makes it so: files come into the pool, new chunks are
// written, one syncfs, one commit of the Store, then indices, and the
// InRelease last. The database is right at any moment; what a crash left
// unpublished is published by Open before anything else happens.
//
// # Time
//
// apt never goes back to a Release whose Date is older than that of the one it
// has, and asks over HTTP only for one that was modified in a later second. So
// the Date of a stage is the clock's second and never goes back, and its signed
// files are said to be modified at least a second later with each publication,
// however many fall into one second; both are part of what is committed. Where
// the clock was set back behind the Date by more than MaxAhead, publications
// wait for it, and meanwhile gather more uploads.
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
