// Package web holds what a browser is given: the templates of the pages and
// the static files beside them. It decides nothing; package ui of repo-manager
// fills the templates and serves the files.
package web

import (
	"embed"
	"io/fs"
)

//go:embed templates static
var files embed.FS

// Templates returns the html/template files, *.html.
func Templates() fs.FS { return below("templates") }

// Static returns the files that are served as they are.
func Static() fs.FS { return below("static") }

func below(dir string) fs.FS {
	sub, err := fs.Sub(files, dir)
	if err != nil {
		panic(err) // only for an invalid path, which dir is not
	}
	return sub
}
