package reading

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// encryptedKey is where a context says how a request came to a proxy.
type encryptedKey struct{}

// Behind is for a server behind proxies: what one of them says of a request is
// taken for the truth. RemoteAddr becomes the address of the client, the last
// of X-Forwarded-For that is no proxy itself, and Encrypted goes by
// X-Forwarded-Proto. Nobody else can say such things.
func Behind(proxies []netip.Prefix, next http.Handler) http.Handler {
	if len(proxies) == 0 {
		return next
	}
	trusted := func(a netip.Addr) bool {
		for _, p := range proxies {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if peer := Address(r); !peer.IsValid() || !trusted(peer) {
			next.ServeHTTP(w, r)
			return
		}
		scheme := r.Header.Get("X-Forwarded-Proto")
		r = r.WithContext(context.WithValue(r.Context(), encryptedKey{}, strings.EqualFold(scheme, "https")))
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		for i := len(hops) - 1; i >= 0; i-- {
			a, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
			if err != nil {
				break
			}
			r.RemoteAddr = netip.AddrPortFrom(a.Unmap(), 0).String()
			if !trusted(a.Unmap()) {
				break
			}
		}
		next.ServeHTTP(w, r)
	})
}

// Encrypted tells whether what a client sends is secret on its way: by TLS to
// this server or to a proxy that said so, or because it is on this machine.
func Encrypted(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	if said, behind := r.Context().Value(encryptedKey{}).(bool); behind {
		return said
	}
	return Address(r).IsLoopback()
}

// Address is where a request comes from. It is not valid if that is no
// network address.
func Address(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap()
}
