package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"crypto/tls"

	"aptfleet/repo-manager/internal/certificate"
)

// caFile is the certificate of the server's own CA in the published tree.
const caFile = "ca.pem"

// openAuthority loads the server's own CA, or makes it, if it is to have one.
func (s *server) openAuthority() (err error) {
	if s.settings.TLS != tlsSelf {
		return nil
	}
	s.authority, err = certificate.OpenAuthority(s.path("keys"), s.clock())
	return err
}

// openCertificate gets the certificate that the listeners present, if any of
// them speaks TLS. They must be open: the certificate may be for where they
// listen.
func (s *server) openCertificate() (err error) {
	switch {
	case s.authority != nil:
		s.certificate, err = s.authority.Keep(func() []string {
			return s.settings.tlsNames(s.listeners.public.Addr(), s.listeners.admin.Addr())
		}, s.clock, s.log)
	case s.settings.adminTLS():
		s.certificate, err = certificate.FromFiles(s.settings.TLSCertificate, s.settings.TLSKey, s.clock, s.log)
	}
	return err
}

// tlsConfigs are those of the public and of the admin listener; nil is none.
func (s *server) tlsConfigs() (public, admin *tls.Config) {
	if s.settings.publicTLS() {
		public = s.certificate.Config()
	}
	if s.settings.adminTLS() {
		admin = s.certificate.Config()
	}
	return public, admin
}

// reload reads again what may change while the server runs: the files of its
// certificate.
func (s *server) reload() {
	if s.certificate != nil {
		s.certificate.Reload()
	}
}

// publicFiles are the files at the top of the published tree.
func (s *server) publicFiles() map[string][]byte {
	files := s.key.files()
	if s.authority != nil {
		files[caFile] = s.authority.PEM()
	}
	return files
}

// publishPublicFiles writes them. The certificate of a CA that signs nothing
// any more is taken away.
func (s *server) publishPublicFiles() error {
	if s.authority == nil {
		if err := os.Remove(filepath.Join(s.path("public"), caFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return publishFiles(s.path("public"), s.publicFiles())
}
