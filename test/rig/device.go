package rig

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"aptfleet/internal/bom"
	"aptfleet/internal/protocol"
	"aptfleet/internal/seal"
	"aptfleet/internal/tlspin"
)

// Device plays a device's side of docs/device-protocol.md: it signs, counts and
// judges what it is told, and installs nothing. It can be kept as JSON, as a
// device keeps its identity.
type Device struct {
	Key      []byte `json:"key"`     // Ed25519, private: 64 bytes
	Sealing  []byte `json:"sealing"` // X25519, private: 32 bytes
	Serial   string `json:"serial"`
	Machine  string `json:"machine"`
	Boot     string `json:"boot"`
	Arch     string `json:"architecture"`
	Product  string `json:"product,omitempty"`
	Revision string `json:"revision,omitempty"`
	CA       string `json:"ca,omitempty"` // PEM, pinned: no other server is believed

	Session  uint64 `json:"session"`
	Sequence uint64 `json:"sequence"`

	Enrolled protocol.Enrolled   `json:"enrolled"`
	Accepted protocol.Assignment `json:"accepted"` // the newest
	Report   protocol.Report     `json:"report"`
	known    string              // hash of the report that the server has
}

// NewDevice makes the keys of a device.
func NewDevice(serial string) (*Device, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	sealing, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return &Device{
		Key: key, Sealing: sealing.Bytes(), Serial: serial, Machine: "machine-" + serial, Boot: rand.Text(), Arch: "amd64", Session: 1,
	}, nil
}

// KeyID names the device's key.
func (d *Device) KeyID() string {
	return protocol.KeyID(ed25519.PrivateKey(d.Key).Public().(ed25519.PublicKey))
}

// Restart is a new start of the updater; a reboot is one with another boot id.
func (d *Device) Restart(reboot bool) {
	d.Session, d.Sequence, d.known = d.Session+1, 0, ""
	if reboot {
		d.Boot = rand.Text()
	}
}

// Enrolment is what the device would send now, signed.
func (d *Device) Enrolment(token string) (protocol.Signed, error) {
	sealing, err := ecdh.X25519().NewPrivateKey(d.Sealing)
	if err != nil {
		return protocol.Signed{}, err
	}
	text, err := json.Marshal(protocol.Enrolment{
		Version: protocol.DeviceProtocol, Key: ed25519.PrivateKey(d.Key).Public().(ed25519.PublicKey), Sealing: sealing.PublicKey().Bytes(),
		Serial: d.Serial, Token: token, Product: d.Product, Architecture: d.Arch, Revision: d.Revision, Machine: d.Machine, Boot: d.Boot,
	})
	return protocol.Sign(d.Key, protocol.ForEnrolment, text), err
}

// Next is the device's next check-in, signed. The report is in it if whole.
func (d *Device) Next(now time.Time, whole bool) (protocol.Signed, error) {
	d.Sequence++
	report, err := json.Marshal(d.Report)
	if err != nil {
		return protocol.Signed{}, err
	}
	in := protocol.CheckIn{
		Version: protocol.DeviceProtocol, Session: d.Session, Sequence: d.Sequence, Boot: d.Boot, Machine: d.Machine, Time: now,
		Counter: d.Accepted.Counter, Expires: d.Accepted.Expires, ReportHash: protocol.ReportHash(report),
	}
	if d.Accepted.Counter > 0 {
		in.Assignment = d.Accepted.Content()
	}
	if whole {
		in.Report = report
	}
	text, err := json.Marshal(in)
	return protocol.Sign(d.Key, protocol.ForCheckIn, text), err
}

// Accept judges an assignment as far as a machine can that installs nothing.
func (d *Device) Accept(signed protocol.Signed, now time.Time) error {
	text, err := signed.Verify(d.Enrolled.AssignmentKey, protocol.ForAssignment)
	if err != nil {
		return fmt.Errorf("refused, signature: %w", err)
	}
	var a protocol.Assignment
	if err := json.Unmarshal(text, &a); err != nil {
		return fmt.Errorf("refused, version: %w", err)
	}
	switch {
	case a.Version != protocol.DeviceProtocol:
		return fmt.Errorf("refused, version: %d", a.Version)
	case a.Device != d.Enrolled.Device || a.Key != d.KeyID():
		return fmt.Errorf("refused, device: it is for %s, key %s", a.Device, a.Key)
	case a.Pipeline != d.Enrolled.Pipeline || a.Product != d.Enrolled.Product:
		return fmt.Errorf("refused, product: it is for %s/%s", a.Pipeline, a.Product)
	case a.Counter < d.Accepted.Counter, a.Counter == d.Accepted.Counter && a.Content() != d.Accepted.Content():
		return fmt.Errorf("refused, counter: %d after %d", a.Counter, d.Accepted.Counter)
	case !now.Before(a.Expires):
		return fmt.Errorf("refused, expired: %s", a.Expires)
	case a.Issued.After(now.Add(10 * time.Minute)):
		return fmt.Errorf("refused, future: %s", a.Issued)
	case !a.Expires.After(a.Issued), a.Expires.Sub(a.Issued) > 90*24*time.Hour:
		return fmt.Errorf("refused, lifetime: %s", a.Expires.Sub(a.Issued))
	}
	d.Accepted = a
	return nil
}

// Enrol asks the server at a URL to take the device. The CA whose fingerprint
// is in the token is pinned before anything is sent.
func (d *Device) Enrol(ctx context.Context, server, token string) (status int, err error) {
	signed, err := d.Enrolment(token)
	if err != nil {
		return 0, err
	}
	if parts := strings.Split(token, "_"); d.CA == "" && len(parts) == 3 {
		ca, err := tlspin.FetchCA(ctx, server, parts[2], nil, nil)
		if err != nil {
			return 0, err
		}
		d.CA = string(ca)
	}
	status, body, err := d.send(ctx, server+"/device/v1/enrolments", signed)
	if err != nil {
		return status, err
	}
	d.Enrolled = protocol.Enrolled{}
	if err := json.Unmarshal(body, &d.Enrolled); err != nil {
		return status, err
	}
	if d.CA != "" && d.Enrolled.CA != d.CA && d.Enrolled.Status == protocol.EnrolmentAccepted {
		return status, errors.New("the server names another CA than the one that it was reached by")
	}
	return status, nil
}

// CheckIn checks in as a device does: with its report if the server does not
// know it, above the session that the server names, and it accepts what it is
// told. status is that of the first answer.
func (d *Device) CheckIn(ctx context.Context, server string) (status int, err error) {
	for first := true; ; first = false {
		report, err := json.Marshal(d.Report)
		if err != nil {
			return 0, err
		}
		hash := protocol.ReportHash(report)
		signed, err := d.Next(time.Now(), d.known != hash)
		if err != nil {
			return 0, err
		}
		got, body, err := d.send(ctx, server+"/device/v1/check-ins", signed)
		if first {
			status = got
		}
		if refused, ok := err.(*DeviceError); ok && refused.Told.Code == protocol.CodeReplay && first {
			d.Session, d.Sequence = refused.Told.Session+1, 0
			continue
		}
		if err != nil || got == http.StatusNoContent {
			if err == nil {
				d.known = hash
			}
			return status, err
		}
		var answer protocol.CheckedIn
		if err := json.Unmarshal(body, &answer); err != nil {
			return status, err
		}
		if answer.Assignment != nil {
			if err := d.Accept(*answer.Assignment, time.Now()); err != nil {
				return status, err
			}
		}
		if !answer.SendReport {
			d.known = hash
			return status, nil
		}
		d.known = ""
	}
}

// Fetch reads a path of the archive with the password that the device was
// given, if it was.
func (d *Device) Fetch(ctx context.Context, server, path string) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server+"/"+path, nil)
	if err != nil {
		return 0, nil, err
	}
	if d.Enrolled.Password != "" {
		req.SetBasicAuth(d.Enrolled.Device, d.Enrolled.Password)
	}
	return d.do(req)
}

// BOM fetches the bill of materials that the device was assigned, and holds it
// against the assignment.
func (d *Device) BOM(ctx context.Context, server string) (status int, bill bom.BOM, err error) {
	r := d.Accepted.Release
	if r == nil {
		return 0, bill, errors.New("no release was assigned")
	}
	status, text, err := d.Fetch(ctx, server, d.Accepted.Pipeline+"/boms/"+r.BOM)
	if err != nil || status != http.StatusOK {
		return status, bill, err
	}
	if int64(len(text)) != r.BOMSize || bom.Sum(text) != r.BOM {
		return status, bill, fmt.Errorf("%d bytes with the SHA-256 %s came, %d with %s were assigned", len(text), bom.Sum(text), r.BOMSize, r.BOM)
	}
	if bill, err = bom.Decode(text); err != nil {
		return status, bill, err
	}
	if bill.State != r.State || bill.Product != d.Enrolled.Product || bill.Architecture != d.Arch {
		return status, bill, fmt.Errorf("the bill of materials is of state %s, product %s, %s", bill.State, bill.Product, bill.Architecture)
	}
	return status, bill, nil
}

// Secrets are those of the accepted configuration, decrypted.
func (d *Device) Secrets() (map[string]string, error) {
	secrets := make(map[string]string)
	if d.Accepted.Config == nil {
		return secrets, nil
	}
	key, err := seal.ParseKey(d.Sealing)
	if err != nil {
		return nil, err
	}
	for name, sealed := range d.Accepted.Config.Secrets {
		plain, err := seal.Open(key, d.Enrolled.Device, name, sealed)
		if err != nil {
			return nil, err
		}
		secrets[name] = string(plain)
	}
	return secrets, nil
}

// Install pretends that what was assigned is booted, and its configuration
// applied.
func (d *Device) Install() {
	if r := d.Accepted.Release; r != nil {
		d.Report.Deployments = []protocol.Deployment{{ID: 1, State: r.State, Snapshot: r.Snapshot, BOM: r.BOM, Role: "booted"}}
	}
	if c := d.Accepted.Config; c != nil {
		d.Report.Config = c.Revision
	}
	d.Report.Follow, d.Report.Phase, d.Report.Health = d.Accepted.Stage, "IDLE", &protocol.Health{OK: true}
}

// DeviceError is what the server told a device instead of an answer.
type DeviceError struct {
	Status int
	Told   protocol.Error
}

func (e *DeviceError) Error() string {
	return fmt.Sprintf("%d %s: %s", e.Status, e.Told.Code, e.Told.Text)
}

// send posts a signed text.
func (d *Device) send(ctx context.Context, url string, signed protocol.Signed) (int, []byte, error) {
	text, err := json.Marshal(signed)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	status, body, err := d.do(req)
	if err != nil || status < http.StatusBadRequest {
		return status, body, err
	}
	var told protocol.ErrorBody
	if err := json.Unmarshal(body, &told); err != nil {
		return status, body, fmt.Errorf("%d: %s", status, body)
	}
	return status, body, &DeviceError{status, told.Error}
}

// do sends a request to no other server than the one with the pinned CA.
func (d *Device) do(req *http.Request) (status int, body []byte, err error) {
	client := http.DefaultClient
	if d.CA != "" {
		transport, err := tlspin.Transport([]byte(d.CA), nil)
		if err != nil {
			return 0, nil, err
		}
		defer transport.CloseIdleConnections()
		client = &http.Client{Transport: transport}
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, body, err
}
