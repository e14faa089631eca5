package certificate

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// checkEvery is how often a Keeper looks for a reason to exchange its
// certificate.
const checkEvery = 10 * time.Second

// Keeper has the certificate that listeners present. Its methods may be called
// concurrently.
type Keeper struct {
	current atomic.Pointer[tls.Certificate]
	log     *slog.Logger

	mu sync.Mutex
	// renew returns a certificate that takes the place of the current one, or
	// nil while that is good. asked: somebody wants it looked at anew.
	renew  func(current *tls.Certificate, asked bool) (*tls.Certificate, error)
	failed string // what the last look said, so that the log has it once
}

func newKeeper(log *slog.Logger, renew func(current *tls.Certificate, asked bool) (*tls.Certificate, error)) (*Keeper, error) {
	k := &Keeper{log: log, renew: renew}
	first, err := renew(nil, true)
	if err != nil {
		return nil, err
	}
	k.current.Store(first)
	return k, nil
}

// Config returns a configuration for listeners: TLS 1.2 or newer, HTTP/2 and
// HTTP/1.1, and at each handshake the certificate that is current then.
func (k *Keeper) Config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return k.current.Load(), nil },
	}
}

// Current returns the certificate that is presented now.
func (k *Keeper) Current() *tls.Certificate { return k.current.Load() }

// Run exchanges the certificate when it is time, until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	ticker := time.NewTicker(checkEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			k.look(false)
		}
	}
}

// Reload looks for another certificate at once. If it cannot be used, the log
// says why, and the current one stays.
func (k *Keeper) Reload() { k.look(true) }

func (k *Keeper) look(asked bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	current := k.current.Load()
	next, err := k.renew(current, asked)
	switch {
	case err != nil:
		if asked || err.Error() != k.failed {
			k.log.Error("cannot exchange the TLS certificate; the one before stays", "error", err, "until", current.Leaf.NotAfter)
		}
		k.failed = err.Error()
	case next == nil:
		k.failed = ""
	default:
		k.failed = ""
		k.current.Store(next)
		k.log.Info("the TLS certificate was exchanged", "for", subjectOf(next.Leaf), "until", next.Leaf.NotAfter)
	}
}

// FromFiles keeps the certificate of two files in PEM: the certificate with
// what leads to its CA, and its private key. They may change at any time, one
// after the other too.
func FromFiles(certFile, keyFile string, clock func() time.Time, log *slog.Logger) (*Keeper, error) {
	var seen [sha256.Size]byte
	return newKeeper(log, func(current *tls.Certificate, asked bool) (*tls.Certificate, error) {
		cert, err := os.ReadFile(certFile)
		key, keyErr := os.ReadFile(keyFile)
		if err := errors.Join(err, keyErr); err != nil {
			return nil, fmt.Errorf("cannot read the TLS certificate: %w", err)
		}
		found := sum(cert, key)
		if found == seen && !asked {
			return nil, nil
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("cannot use the TLS certificate %s with the key %s: %w", certFile, keyFile, err)
		}
		if now := clock(); now.After(pair.Leaf.NotAfter) {
			err := fmt.Errorf("cannot use the TLS certificate %s: it expired on %s", certFile, pair.Leaf.NotAfter.Format(time.DateOnly))
			if current != nil {
				return nil, err
			}
			log.Error("the TLS certificate is of no use to clients", "error", err) // a server with it can still be told so
		}
		same := found == seen
		if seen = found; same {
			return nil, nil
		}
		return &pair, nil
	})
}

// Keep issues certificates for the names that the server has at each moment:
// the next one when a third of the life of one is left, or there is a name that
// it lacks.
func (a *Authority) Keep(names func() []string, clock func() time.Time, log *slog.Logger) (*Keeper, error) {
	var issuedFor []string
	return newKeeper(log, func(current *tls.Certificate, asked bool) (*tls.Certificate, error) {
		wanted, now := names(), clock()
		slices.Sort(wanted)
		wanted = slices.Compact(wanted)
		// Addresses that a machine has for a while come and go: one that went may
		// stay in the certificate. A clock that was set back far makes that one
		// of the future.
		isNew := func(name string) bool { return !slices.Contains(issuedFor, name) }
		good := current != nil && !slices.ContainsFunc(wanted, isNew) && now.After(current.Leaf.NotBefore) && now.Before(current.Leaf.NotAfter.Add(-leafLife/3))
		if good && !asked {
			return nil, nil
		}
		issued, err := a.Issue(wanted, now)
		if err != nil {
			return nil, err
		}
		issuedFor = wanted
		return issued, nil
	})
}
