package client

import (
	"context"
	"net/http"
	"net/url"

	"aptfleet/internal/protocol"
)

// Devices lists the devices that a filter takes, by name.
func (c *Client) Devices(ctx context.Context, f protocol.DeviceFilter) ([]protocol.Device, error) {
	query := make(url.Values)
	for name, value := range map[string]string{
		"pipeline": f.Pipeline, "product": f.Product, "stage": f.Stage, "revision": f.Revision, "state": f.State, "snapshot": f.Snapshot, "package": f.Package,
	} {
		if value != "" {
			query.Set(name, value)
		}
	}
	return get[[]protocol.Device](ctx, c, "/api/v1/devices", query)
}

func devicePath(name string, parts ...string) string {
	return segments(append([]string{"api", "v1", "devices", name}, parts...)...)
}

// Device returns one device with its last report and its history.
func (c *Client) Device(ctx context.Context, name string) (protocol.Device, error) {
	return get[protocol.Device](ctx, c, devicePath(name), nil)
}

// onDevice acts on a device and returns it as it is then.
func (c *Client) onDevice(ctx context.Context, method, path string, in any) (protocol.Device, error) {
	var out protocol.Device
	_, err := c.call(ctx, request{method: method, path: path, json: in}, &out)
	return out, err
}

// SetDevice changes the hardware revision or the modules of a device.
func (c *Client) SetDevice(ctx context.Context, name string, change protocol.SetDevice) (protocol.Device, error) {
	return c.onDevice(ctx, http.MethodPatch, devicePath(name), change)
}

// AssignDevice makes a device follow another stage.
func (c *Client) AssignDevice(ctx context.Context, name, stage string) (protocol.Device, error) {
	return c.onDevice(ctx, http.MethodPost, devicePath(name, "assign"), protocol.AssignStage{Stage: stage})
}

// HoldDevice keeps a device as it is.
func (c *Client) HoldDevice(ctx context.Context, name string, hold protocol.Hold) (protocol.Device, error) {
	return c.onDevice(ctx, http.MethodPost, devicePath(name, "hold"), hold)
}

// UnholdDevice takes a hold off.
func (c *Client) UnholdDevice(ctx context.Context, name string) (protocol.Device, error) {
	return c.onDevice(ctx, http.MethodDelete, devicePath(name, "hold"), nil)
}

// PinDevice keeps a device at a snapshot.
func (c *Client) PinDevice(ctx context.Context, name string, pin protocol.PinDevice) (protocol.Device, error) {
	return c.onDevice(ctx, http.MethodPost, devicePath(name, "pin"), pin)
}

// UnpinDevice makes a device follow its stage again.
func (c *Client) UnpinDevice(ctx context.Context, name string) (protocol.Device, error) {
	return c.onDevice(ctx, http.MethodDelete, devicePath(name, "pin"), nil)
}

// RetireDevice ends a device for good.
func (c *Client) RetireDevice(ctx context.Context, name, reason string) (protocol.Device, error) {
	return c.onDevice(ctx, http.MethodPost, devicePath(name, "retire"), protocol.Reason{Reason: reason})
}

// ResolveDevice says which of two machines with one key a device is.
func (c *Client) ResolveDevice(ctx context.Context, name, keep string) (protocol.Device, error) {
	return c.onDevice(ctx, http.MethodPost, devicePath(name, "resolve"), protocol.Resolve{Keep: keep})
}

// Registrations lists the serial numbers that may enrol.
func (c *Client) Registrations(ctx context.Context) ([]protocol.Registration, error) {
	return get[[]protocol.Registration](ctx, c, "/api/v1/registrations", nil)
}

// Register lets machines enrol by their serial numbers: all of them, or none.
// It returns false if they were registered already.
func (c *Client) Register(ctx context.Context, all []protocol.Registration) (bool, error) {
	status, err := c.call(ctx, request{method: http.MethodPost, path: "/api/v1/registrations", json: all}, nil)
	return status == http.StatusCreated, err
}

// Unregister takes a registration back.
func (c *Client) Unregister(ctx context.Context, serial string) error {
	_, err := c.call(ctx, request{method: http.MethodDelete, path: segments("api", "v1", "registrations", serial)}, nil)
	return err
}

// EnrolmentTokens lists the enrolment tokens, newest first.
func (c *Client) EnrolmentTokens(ctx context.Context) ([]protocol.EnrolmentToken, error) {
	return get[[]protocol.EnrolmentToken](ctx, c, "/api/v1/enrolment-tokens", nil)
}

// CreateEnrolmentToken makes one. Its text is in this answer only.
func (c *Client) CreateEnrolmentToken(ctx context.Context, t protocol.EnrolmentToken) (protocol.EnrolmentToken, error) {
	return post[protocol.EnrolmentToken](ctx, c, "/api/v1/enrolment-tokens", t)
}

// RevokeEnrolmentToken ends one.
func (c *Client) RevokeEnrolmentToken(ctx context.Context, id string) error {
	_, err := c.call(ctx, request{method: http.MethodDelete, path: segments("api", "v1", "enrolment-tokens", id)}, nil)
	return err
}

// Enrolments lists the enrolments that wait for an operator, oldest first.
func (c *Client) Enrolments(ctx context.Context) ([]protocol.PendingEnrolment, error) {
	return get[[]protocol.PendingEnrolment](ctx, c, "/api/v1/enrolments", nil)
}

// AcceptEnrolment makes one a device. which is its key or serial number.
func (c *Client) AcceptEnrolment(ctx context.Context, which string, how protocol.Accept) (protocol.Device, error) {
	return post[protocol.Device](ctx, c, segments("api", "v1", "enrolments", which, "accept"), how)
}

// RefuseEnrolment turns one away for good.
func (c *Client) RefuseEnrolment(ctx context.Context, which, reason string) error {
	_, err := c.call(ctx, request{method: http.MethodPost, path: segments("api", "v1", "enrolments", which, "refuse"), json: protocol.Reason{Reason: reason}}, nil)
	return err
}

// PardonEnrolment lets one ask again that was turned away.
func (c *Client) PardonEnrolment(ctx context.Context, which string) error {
	_, err := c.call(ctx, request{method: http.MethodDelete, path: segments("api", "v1", "enrolments", which, "refuse")}, nil)
	return err
}
