package fleet

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
)

// password reads the archive in the name of the device that has a key. It is
// made anew whenever it is needed, so that no store has it.
func (s *Service) password(keyID string) string {
	mac := hmac.New(sha256.New, s.ReadSecret)
	mac.Write([]byte(keyID))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// ReadAllowed tells whether a device may read the archive of a pipeline: user
// is its name. A retired device may not, nor one with an older key.
func (s *Service) ReadAllowed(user, password, pipeline string) bool {
	s.mu.RLock()
	d := s.devices[user]
	ok := d != nil && d.Retired == nil && d.Pipeline == pipeline
	want := ""
	if ok {
		want = s.password(d.KeyID())
	}
	s.mu.RUnlock()
	return ok && hmac.Equal([]byte(want), []byte(password))
}
