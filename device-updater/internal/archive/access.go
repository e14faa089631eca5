package archive

import (
	"errors"
	"net/http"
	"strings"
	"time"
)

// Access is how an archive is read that not everybody may read, or whose
// certificate no public authority vouches for.
type Access struct {
	User     string // "": without a password
	Password string
}

// NewHTTP returns a client for the archive at url over a transport. The
// password goes to URLs below it and nowhere else; a redirect to another host,
// or away from TLS, is not followed.
func NewHTTP(transport http.RoundTripper, url string, access Access) *http.Client {
	if access.Password != "" {
		transport = &login{transport, strings.TrimRight(url, "/") + "/", access}
	}
	return &http.Client{Transport: transport, Timeout: time.Minute, CheckRedirect: stayHere}
}

func stayHere(next *http.Request, before []*http.Request) error {
	first := before[0].URL
	if next.URL.Host != first.Host || next.URL.Scheme != first.Scheme {
		return errors.New("it redirects to " + next.URL.Scheme + "://" + next.URL.Host + ", which is not the archive")
	}
	if len(before) >= 5 {
		return errors.New("it redirects too often")
	}
	return nil
}

// login adds the password to requests.
type login struct {
	next  http.RoundTripper
	below string
	Access
}

func (l *login) RoundTrip(request *http.Request) (*http.Response, error) {
	if strings.HasPrefix(request.URL.String(), l.below) {
		request = request.Clone(request.Context())
		request.SetBasicAuth(l.User, l.Password)
	}
	return l.next.RoundTrip(request)
}
