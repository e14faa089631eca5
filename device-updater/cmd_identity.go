package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"aptfleet/device-updater/internal/identity"
	"aptfleet/internal/protocol"
	"aptfleet/internal/sign"
	"aptfleet/internal/term"
)

func (p *program) identityCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "identity",
		Short:   "Show who this device is, and whom it believes",
		Long:    "identity reads what lies on the disk: it makes nothing and asks nobody.",
		Example: "  device-updater identity --json",
		Args:    usage(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.showIdentity(cmd.Context()) },
	}
}

// identityView is all there is to see of an identity.
type identityView struct {
	Serial   string   `json:"serial,omitempty"`
	Revision string   `json:"revision,omitempty"` // of the hardware
	Unsure   string   `json:"unsure,omitempty"`   // why the revision is not known, if something is wrong about it
	Machine  string   `json:"machine"`            // hash of the hardware
	Facts    []string `json:"facts"`              // that the hash is made of; none: nothing is known
	Key      string   `json:"key,omitempty"`      // KeyID of the device's key; "": it has none yet
	Sealing  string   `json:"sealing,omitempty"`  // KeyID of the sealing key

	Device        string    `json:"device,omitempty"` // name; "": not enrolled
	Server        string    `json:"server,omitempty"`
	Pipeline      string    `json:"pipeline,omitempty"`
	Product       string    `json:"product,omitempty"`
	Enrolled      time.Time `json:"enrolled,omitzero"`
	AssignmentKey string    `json:"assignment_key,omitempty"` // KeyID
	Archive       string    `json:"archive,omitempty"`
	ArchiveKey    string    `json:"archive_key,omitempty"`    // fingerprint
	CAFingerprint string    `json:"ca_fingerprint,omitempty"` // SHA-256 of the certificate; "": a public authority
	Password      bool      `json:"password"`                 // the archive is private
}

func (p *program) showIdentity(ctx context.Context) error {
	v, err := p.lookIdentity(ctx)
	if err != nil {
		return err
	}
	if p.io.JSON {
		return p.io.PrintJSON(v)
	}
	none := func(s, otherwise string) string {
		if s == "" {
			return otherwise
		}
		return term.Printable(s)
	}
	w := tabwriter.NewWriter(p.io.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "device\t%s\n", none(v.Device, "not enrolled"))
	fmt.Fprintf(w, "serial\t%s\n", none(v.Serial, "unknown"))
	fmt.Fprintf(w, "hardware revision\t%s\n", none(v.Revision, cmp.Or(v.Unsure, "unknown")))
	fmt.Fprintf(w, "machine\t%s\n", v.Machine)
	fmt.Fprintf(w, "made of\t%s\n", none(strings.Join(v.Facts, ", "), "nothing: only its boots tell it from a clone"))
	fmt.Fprintf(w, "key\t%s\n", none(v.Key, "none yet"))
	if v.Device != "" {
		fmt.Fprintf(w, "server\t%s, since %s\n", v.Server, v.Enrolled.UTC().Format(time.RFC3339))
		fmt.Fprintf(w, "product\t%s of pipeline %s\n", v.Product, v.Pipeline)
		fmt.Fprintf(w, "assignment key\t%s\n", v.AssignmentKey)
		fmt.Fprintf(w, "archive\t%s\n", v.Archive)
		fmt.Fprintf(w, "archive key\t%s\n", v.ArchiveKey)
		fmt.Fprintf(w, "authority\t%s\n", none(v.CAFingerprint, "a public one"))
	}
	return w.Flush()
}

func (p *program) lookIdentity(ctx context.Context) (identityView, error) {
	dir := p.identity()
	c, err := p.settings()
	if err != nil {
		return identityView{}, err
	}
	h := identity.ReadHardware(os.DirFS("/"))
	v := identityView{Machine: h.Machine, Facts: append([]string{}, h.Facts...)}
	keys, err := dir.Keys()
	switch {
	case errors.Is(err, identity.ErrNone):
	case err != nil:
		return identityView{}, err
	default:
		v.Key, v.Sealing = keys.ID(), protocol.KeyID(keys.Sealing())
	}
	if v.Revision, err = p.board(c).Revision(ctx); err != nil {
		v.Unsure = err.Error()
	}
	e, enrolled, err := dir.Enrolment()
	if err != nil {
		return identityView{}, err
	}
	if !enrolled {
		// Not to know it is no error before it is needed.
		v.Serial, _ = dir.Serial(c.Serial, h)
		return v, nil
	}
	v.Serial, v.Device, v.Server, v.Pipeline, v.Product, v.Enrolled = e.Serial, e.Device, e.Server, e.Pipeline, e.Product, e.Enrolled
	v.AssignmentKey, v.Archive, v.Password = protocol.KeyID(e.AssignmentKey), e.Archive, e.Password != ""
	if v.ArchiveKey, err = sign.CertificateFingerprint([]byte(e.ArchiveKey)); err != nil {
		return identityView{}, err
	}
	if block, _ := pem.Decode([]byte(e.CA)); block != nil { // what follows the first certificate does not count
		sum := sha256.Sum256(block.Bytes)
		v.CAFingerprint = hex.EncodeToString(sum[:])
	}
	return v, nil
}
