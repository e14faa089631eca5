//go:build pprof

package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
)

// startProfiling answers net/http/pprof's requests on the Unix socket that
// APTFLEET_PPROF names, for as long as the process lives. Only a program built
// with -tags pprof has it: it is for measuring, not for operation.
func startProfiling(getenv func(string) string) error {
	path := getenv("APTFLEET_PPROF")
	if path == "" {
		return nil
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("cannot offer profiles: %w", err)
	}
	routes := http.NewServeMux()
	routes.HandleFunc("/debug/pprof/", pprof.Index) // and each profile by its name
	routes.HandleFunc("/debug/pprof/profile", pprof.Profile)
	routes.HandleFunc("/debug/pprof/trace", pprof.Trace)
	go func() { _ = http.Serve(listener, routes) }() // ends with the process
	return nil
}
