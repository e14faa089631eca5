package api

import (
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/fleet"
)

func toDevice(v fleet.View) protocol.Device {
	out := protocol.Device{
		Name: v.Name, Pipeline: v.Pipeline, Product: v.Product, Stage: v.Stage, Serial: v.Serial, Modules: v.Modules,
		Architecture: v.Architecture, Revision: v.HardwareRevision(), Key: v.KeyID(), Hold: v.Hold, Pin: v.Pin, Retired: v.Retired, Clone: v.Clone,
		Created: v.Created.UTC(), Enrolled: v.Enrolled.UTC(), Counter: v.Counter, Given: v.Release, Report: v.Report,
		State: v.State, Has: v.Has, Should: v.Should, Healthy: v.Healthy, WhyNot: v.WhyNot,
	}
	if !v.Seen.IsZero() {
		out.Seen = v.Seen.UTC()
		out.Skew = v.Skew.Round(time.Millisecond).Seconds()
	}
	if v.Where.Machine != "" {
		out.Where = &v.Where
	}
	return out
}

func toEnrolmentToken(t fleet.EnrolToken) protocol.EnrolmentToken {
	return protocol.EnrolmentToken{
		ID: t.ID(), Pipeline: t.Pipeline, Product: t.Product, Stage: t.Stage, Modules: t.Modules, Serial: t.Serial, Label: t.Label,
		Uses: t.Uses, Left: t.Left, By: t.By, Created: t.Created.UTC(), Expires: t.Expires.UTC(),
	}
}

func listDevices(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	all, err := s.Fleet.List(c.Request.Context(), protocol.DeviceFilter{
		Pipeline: c.Query("pipeline"), Product: c.Query("product"), Stage: c.Query("stage"), Revision: c.Query("revision"),
		State: c.Query("state"), Snapshot: c.Query("snapshot"), Package: c.Query("package"),
	})
	all = seen(who, all, func(v fleet.View) string { return v.Pipeline })
	return http.StatusOK, list(all, toDevice), err
}

// shown is one device with its history.
func (s *server) shown(c *gin.Context) (int, any, error) {
	v, events, err := s.Fleet.Show(c.Request.Context(), c.Param("d"))
	if err != nil {
		return 0, nil, err
	}
	out := toDevice(v)
	out.History = list(events, func(e fleet.Event) protocol.DeviceEvent { return protocol.DeviceEvent{At: e.At.UTC(), Text: e.Text} })
	return http.StatusOK, out, nil
}

func getDevice(s *server, c *gin.Context, _ access.Identity) (int, any, error) { return s.shown(c) }

// changed answers an act on a device with the device as it is now.
func (s *server) changed(c *gin.Context, _ fleet.Device, err error) (int, any, error) {
	if err != nil {
		return 0, nil, err
	}
	return s.shown(c)
}

func setDevice(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.SetDevice
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	d, err := s.Fleet.Set(c.Request.Context(), who.Actor(), c.Param("d"), in.Revision, in.Modules)
	return s.changed(c, d, err)
}

func assignDevice(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.AssignStage
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	d, err := s.Fleet.Assign(c.Request.Context(), who.Actor(), c.Param("d"), in.Stage)
	return s.changed(c, d, err)
}

func holdDevice(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.Hold
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	d, err := s.Fleet.Hold(c.Request.Context(), who.Actor(), c.Param("d"), in.Reason, in.Until)
	return s.changed(c, d, err)
}

func unholdDevice(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	d, err := s.Fleet.Unhold(c.Request.Context(), who.Actor(), c.Param("d"))
	return s.changed(c, d, err)
}

// pinDevice takes a snapshot by its id, a unique prefix, or a stage's name.
func pinDevice(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.PinDevice
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	d, err := s.Fleet.Device(c.Request.Context(), c.Param("d"))
	if err != nil {
		return 0, nil, err
	}
	if in.Snapshot == "" {
		return 0, nil, invalid("repo-manager snapshot list", "cannot pin device %s: it needs a snapshot", d.Name)
	}
	snapshot, err := s.Releases.Snapshot(c.Request.Context(), d.Pipeline, in.Snapshot)
	if err != nil {
		return 0, nil, err
	}
	d, err = s.Fleet.Pin(c.Request.Context(), who.Actor(), d.Name, snapshot.ID, in.Reason)
	return s.changed(c, d, err)
}

func unpinDevice(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	d, err := s.Fleet.Unpin(c.Request.Context(), who.Actor(), c.Param("d"))
	return s.changed(c, d, err)
}

func retireDevice(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.Reason
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	d, err := s.Fleet.Retire(c.Request.Context(), who.Actor(), c.Param("d"), in.Reason)
	return s.changed(c, d, err)
}

func resolveDevice(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.Resolve
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	d, err := s.Fleet.Resolve(c.Request.Context(), who.Actor(), c.Param("d"), in.Keep)
	return s.changed(c, d, err)
}

func listRegistrations(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	return http.StatusOK, seen(who, s.Fleet.Registrations(c.Request.Context()), func(r fleet.Registration) string { return r.Pipeline }), nil
}

// registerDevices takes a list: all of it is registered, or nothing. 200
// instead of 201 says that all was so already.
func registerDevices(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in []protocol.Registration
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	if len(in) == 0 {
		return 0, nil, invalid("", "cannot register devices: the list is empty")
	}
	for _, r := range in {
		if err := s.mayRegister(c, who, r); err != nil {
			return 0, nil, err
		}
	}
	isNew, err := s.Fleet.Register(c.Request.Context(), who.Actor(), in)
	if !isNew {
		return http.StatusOK, in, err
	}
	return http.StatusCreated, in, err
}

// mayRegister tells whether who looks after the device that has a serial number
// already: if it is retired it becomes what the registration says, with its name
// and what is configured for that.
func (s *server) mayRegister(c *gin.Context, who access.Identity, r protocol.Registration) error {
	if d, ok := s.Fleet.BySerial(c.Request.Context(), r.Serial); ok {
		return may(who, []string{operator, manufacturing}, scopeOfDevice(d))
	}
	return nil
}

func unregisterDevice(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	return http.StatusNoContent, nil, s.Fleet.Unregister(c.Request.Context(), who.Actor(), c.Param("serial"))
}

func listEnrolmentTokens(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	all := seen(who, s.Fleet.Tokens(c.Request.Context()), func(t fleet.EnrolToken) string { return t.Pipeline })
	return http.StatusOK, list(all, toEnrolmentToken), nil
}

func createEnrolmentToken(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.EnrolmentToken
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	t, text, err := s.Fleet.CreateToken(c.Request.Context(), who.Actor(), fleet.EnrolToken{
		Pipeline: in.Pipeline, Product: in.Product, Stage: in.Stage, Modules: in.Modules, Serial: in.Serial, Label: in.Label, Uses: in.Uses, Expires: in.Expires,
	})
	out := toEnrolmentToken(t)
	out.Token = text
	return http.StatusCreated, out, err
}

func revokeEnrolmentToken(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	return http.StatusNoContent, nil, s.Fleet.RevokeToken(c.Request.Context(), who.Actor(), c.Param("id"))
}

func listEnrolments(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	return http.StatusOK, s.Fleet.Pending(c.Request.Context()), nil
}

func acceptEnrolment(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.Accept
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	if err := s.mayReplace(c, who, in); err != nil {
		return 0, nil, err
	}
	d, err := s.Fleet.Accept(c.Request.Context(), who.Actor(), c.Param("key"), in)
	if err != nil {
		return 0, nil, err
	}
	v, _, err := s.Fleet.Show(c.Request.Context(), d.Name)
	return http.StatusCreated, toDevice(v), err
}

// mayReplace tells whether who looks after the device whose key would be
// replaced: it has its pipeline already, whatever the request says.
func (s *server) mayReplace(c *gin.Context, who access.Identity, in protocol.Accept) error {
	if !in.Replace {
		return nil
	}
	which := c.Param("key")
	for _, p := range s.Fleet.Pending(c.Request.Context()) {
		if p.Replaces == "" || p.Serial != which && !strings.HasPrefix(p.Key, which) {
			continue
		}
		d, err := s.Fleet.Device(c.Request.Context(), p.Replaces)
		if err == nil {
			err = may(who, []string{operator}, scopeOfDevice(d))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func refuseEnrolment(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.Reason
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, s.Fleet.Refuse(c.Request.Context(), who.Actor(), c.Param("key"), in.Reason)
}

func pardonEnrolment(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	return http.StatusNoContent, nil, s.Fleet.Pardon(c.Request.Context(), who.Actor(), c.Param("key"))
}
