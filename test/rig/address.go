package rig

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// FreeAddress returns a host and port of the loopback that nobody else will
// take before a server does that is told to listen there: programs that listen
// or connect somewhere take ports of 127.0.0.1.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(250), rand.IntN(250), 1+rand.IntN(250)))
	if err != nil {
		return "", fmt.Errorf("cannot find a free address: %w", err)
	}
	return l.Addr().String(), l.Close()
}
