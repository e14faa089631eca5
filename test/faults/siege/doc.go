// Package siege lets a repo-manager die again and again while many work with
// it, and looks at what is left each time.
//
// Uploaders, people who promote and undo, clients that read and now and then a
// real apt are at the server at once. At some moment it is killed, or the
// power of its disk fails. Then, before anything repairs it, every base of the
// published tree must be one that apt accepts: nginx might serve it right now.
// After a restart everything that was answered must be there: every accepted
// package, or a later version of it, with its bytes; every promotion and undo,
// in the history and in what the stage offers; every snapshot. Nothing is
// under way any more, nothing is left behind, and check finds nothing.
//
// What was answered and is not there is lost; what no client may ever see is a
// mismatch: a bad signature, an index or a package with other bytes than was
// said, a Date that goes back or stands for two texts.
package siege
