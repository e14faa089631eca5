package access

import (
	"context"
	"net"

	"golang.org/x/sys/unix"
)

// identityKey is where a context holds who is known from the connection.
type identityKey struct{}

// FromContext returns who is known from the connection of a request: the
// process at the other end of the Unix socket.
func FromContext(ctx context.Context) (Identity, bool) {
	id, ok := ctx.Value(identityKey{}).(Identity)
	return id, ok
}

// NewContext returns a context from which FromContext reads id.
func NewContext(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

// ConnContext is for http.Server: it asks the kernel (SO_PEERCRED, unix(7))
// who opened a connection of a Unix socket. Other connections, and those the
// kernel does not tell about, name nobody.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || credErr != nil {
		return ctx
	}
	return NewContext(ctx, Peer(cred.Uid))
}
