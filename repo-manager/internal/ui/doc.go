// Package ui serves the pages of repo-manager: the Pipeline page, the review
// of a promotion or an undo, the history of a stage, and signing in.
//
// Pages are rendered on the server from view models (the view_*.go files, which
// hold no markup) through the templates of package web (which hold no
// decisions). Everything works without script. With script, the pages that
// show the pipeline follow its events and replace what changed.
//
// Nothing on a page acts by being looked at: every act is a POST with the
// session's CSRF token from a page of the same origin, and answers with a
// redirect. An act carries what the person was shown; when the pipeline moved
// meanwhile, the answer is a page that says what moved.
package ui
