package main

import (
	"net"
	"net/netip"
	"net/url"
	"os"

	"aptfleet/internal/term"
)

// The values of the setting tls. Without it a certificate that is named serves
// the admin listener alone.
const (
	tlsOff   = "off"   // no listener speaks TLS
	tlsSelf  = "self"  // all do, with certificates of the server's own CA
	tlsFiles = "files" // all do, with tls_certificate and tls_key
)

// publicTLS tells whether the public listener speaks TLS.
func (s *settings) publicTLS() bool { return s.TLS == tlsSelf || s.TLS == tlsFiles }

// adminTLS tells whether the admin listener speaks TLS.
func (s *settings) adminTLS() bool {
	return s.publicTLS() || s.TLS == "" && s.TLSCertificate != ""
}

// scheme is that of the public listener's URL.
func scheme(tls bool) string {
	if tls {
		return "https://"
	}
	return "http://"
}

func (s *settings) validateTLS() error {
	switch s.TLS {
	case "", tlsOff, tlsSelf, tlsFiles:
	default:
		return term.Usagef("cannot use tls %q: want off, self (a CA of the server's own) or files (tls_certificate and tls_key)", s.TLS)
	}
	switch {
	case (s.TLSCertificate == "") != (s.TLSKey == ""):
		return term.Usagef("cannot use TLS: tls_certificate and tls_key belong together")
	case s.TLS == tlsFiles && s.TLSCertificate == "":
		return term.Usagef("cannot use tls files: tls_certificate and tls_key are missing")
	case s.TLS == tlsSelf && s.TLSCertificate != "":
		return term.WithHint(term.Usagef("cannot use tls self: tls_certificate names another certificate"), "set tls to files, or remove tls_certificate and tls_key")
	case s.ListenHTTP != "" && !s.publicTLS():
		return term.WithHint(term.Usagef("cannot use listen_http: without tls, listen is without TLS already"), "set tls to self or files")
	case !s.adminTLS() && !isLoopback(s.ListenAdmin):
		return term.WithHint(
			term.Usagef("cannot open the admin listener on %s: it would send tokens over the network unencrypted", s.ListenAdmin),
			"listen on 127.0.0.1, or set tls to self or files")
	}
	return nil
}

// proxies are the addresses whose word about clients is taken.
func (s *settings) proxies() ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range s.Proxies {
		p, err := netip.ParsePrefix(text)
		if a, addrErr := netip.ParseAddr(text); addrErr == nil {
			p, err = a.Prefix(a.BitLen())
		}
		if err != nil {
			return nil, term.Usagef("cannot use proxies: %q is neither an address nor a network, as 10.1.0.0/16", text)
		}
		all = append(all, p)
	}
	return all, nil
}

// tlsNames are the names and addresses by which clients know this server:
// those of its URLs and hosts, this machine's own, and where it listens.
func (s *settings) tlsNames(listeners ...net.Addr) []string {
	names := append([]string{"localhost", "127.0.0.1", "::1"}, s.Hosts...)
	for _, text := range []string{s.URL, s.URLAdmin} {
		if u, err := url.Parse(text); err == nil && u.Hostname() != "" {
			names = append(names, u.Hostname())
		}
	}
	for _, address := range []string{s.Listen, s.ListenAdmin} {
		if host, _, err := net.SplitHostPort(address); err == nil && host != "" {
			names = append(names, host)
		}
	}
	everywhere := false
	for _, l := range listeners {
		ap, err := netip.ParseAddrPort(l.String())
		switch {
		case err != nil:
		case ap.Addr().IsUnspecified():
			everywhere = true
		default:
			names = append(names, ap.Addr().Unmap().WithZone("").String())
		}
	}
	if everywhere {
		names = append(names, machineNames()...)
	}
	return names
}

// machineNames are the names and addresses that this machine has at the
// moment. What cannot be found out is left out.
func machineNames() []string {
	var names []string
	if name, err := os.Hostname(); err == nil {
		names = append(names, name)
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return names
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
			names = append(names, p.Addr().String())
		}
	}
	return names
}
