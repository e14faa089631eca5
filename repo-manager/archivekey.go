package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"aptfleet/internal/atomicfile"
	"aptfleet/internal/deb"
	"aptfleet/internal/debwriter"
	"aptfleet/internal/sign"
	"aptfleet/internal/term"
)

// keyringPackage is the Debian package that brings the archive's certificate
// to devices; keyringFile is where it lies there.
const (
	keyringPackage = "aptfleet-archive-keyring"
	keyringFile    = "/usr/share/keyrings/aptfleet-archive-keyring.pgp"
)

// archiveKey is the key of an archive and what is derived from it.
type archiveKey struct {
	*sign.Key
	path        string
	made        bool   // just now
	certificate []byte // armoured
	deb         []byte // the keyring package: the same bytes at each start
}

// openKey loads the archive key from DATA/keys, or makes one if the archive
// is new. An archive that has lost its key is refused: with another one,
// every device would turn away.
func openKey(data string, isNew bool, now time.Time) (archiveKey, error) {
	dir := filepath.Join(data, "keys")
	k := archiveKey{path: filepath.Join(dir, "archive.key")}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return k, fmt.Errorf("cannot open archive key: %w", err)
	}
	private, err := os.ReadFile(k.path)
	switch {
	case err == nil:
		k.Key, err = sign.Load(private)
	case !errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("cannot open archive key: %w", err)
	case !isNew:
		err = term.WithHint(fmt.Errorf("cannot open archive key: %s is gone", k.path),
			"restore it from your backup; a new key would make every device refuse this archive")
	default:
		k.made = true
		k.Key, err = makeKey(k.path, now)
	}
	if err != nil {
		return k, err
	}
	if k.certificate, err = k.Certificate(); err != nil {
		return k, err
	}
	if err := atomicfile.Write(filepath.Join(dir, "archive.asc"), k.certificate, 0o644); err != nil {
		return k, err
	}
	k.deb, err = k.keyringDeb()
	return k, err
}

func makeKey(path string, now time.Time) (*sign.Key, error) {
	key, err := sign.Generate("Aptfleet archive", "", now.Truncate(time.Second))
	if err != nil {
		return nil, err
	}
	private, err := key.Private()
	if err != nil {
		return nil, err
	}
	return key, atomicfile.Write(path, private, 0o600)
}

// keyringDeb builds the keyring package. Its version is the time the key was
// made, so that a later key has a higher one.
func (k archiveKey) keyringDeb() ([]byte, error) {
	keyring, err := k.CertificateBinary()
	if err != nil {
		return nil, err
	}
	control, err := deb.ParseStanza([]byte("Package: " + keyringPackage + `
Version: ` + k.Created().Format("2006.01.02.150405") + `
Architecture: all
Maintainer: Aptfleet archive <root@localhost>
Section: misc
Priority: optional
Multi-Arch: foreign
Description: OpenPGP certificate of an Aptfleet archive
 The certificate ` + k.Fingerprint() + `
 that signs the Release files of the archive this package came from. apt uses
 it through Signed-By: ` + keyringFile + `
`))
	if err != nil {
		return nil, fmt.Errorf("cannot describe the keyring package: %w", err)
	}
	var file bytes.Buffer
	err = debwriter.Write(&file, debwriter.Spec{
		Control: control, ModTime: k.Created(), Compression: debwriter.Gzip,
		Entries: []debwriter.Entry{{
			Path: keyringFile, Mode: 0o644, Size: int64(len(keyring)),
			Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(keyring)), nil },
		}},
	})
	return file.Bytes(), err
}

// files are what of the key belongs into the published tree.
func (k archiveKey) files() map[string][]byte {
	return map[string][]byte{"archive-keyring.asc": k.certificate, "archive-keyring.deb": k.deb}
}

// publishFiles writes files of the published tree, where they are not there
// already.
func publishFiles(public string, files map[string][]byte) error {
	for name, content := range files {
		path := filepath.Join(public, name)
		if there, err := os.ReadFile(path); err == nil && bytes.Equal(there, content) {
			continue
		}
		if err := atomicfile.Write(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
