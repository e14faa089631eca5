package rig

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"aptfleet/internal/protocol"
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

// Enrol asks the server at a URL to take the device.
func (d *Device) Enrol(ctx context.Context, server, token string) (status int, err error) {
	signed, err := d.Enrolment(token)
	if err != nil {
		return 0, err
	}
	status, body, err := send(ctx, server+"/device/v1/enrolments", signed)
	if err != nil {
		return status, err
	}
	d.Enrolled = protocol.Enrolled{}
	return status, json.Unmarshal(body, &d.Enrolled)
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
		got, body, err := send(ctx, server+"/device/v1/check-ins", signed)
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

// DeviceError is what the server told a device instead of an answer.
type DeviceError struct {
	Status int
	Told   protocol.Error
}

func (e *DeviceError) Error() string {
	return fmt.Sprintf("%d %s: %s", e.Status, e.Told.Code, e.Told.Text)
}

// send posts a signed text.
func send(ctx context.Context, url string, signed protocol.Signed) (int, []byte, error) {
	text, err := json.Marshal(signed)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil || resp.StatusCode < http.StatusBadRequest {
		return resp.StatusCode, body, err
	}
	var told protocol.ErrorBody
	if err := json.Unmarshal(body, &told); err != nil {
		return resp.StatusCode, body, fmt.Errorf("%d: %s", resp.StatusCode, body)
	}
	return resp.StatusCode, body, &DeviceError{resp.StatusCode, told.Error}
}
