// Package servertest is a server of the device protocol for tests. It follows
// docs/device-protocol.md and shares nothing with the real one; a test can make
// it lie.
package servertest

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/internal/sign"
)

// Pipeline and Product of every device that is accepted.
const (
	Pipeline = "demo"
	Product  = "gateway"
)

// Server is one server. Its fields may be changed under its lock.
type Server struct {
	sync.Mutex
	URL         string
	CA          []byte // PEM; nil: plain HTTP
	Fingerprint string // of CA
	Assignment  ed25519.PrivateKey
	Archive     *sign.Key
	Certificate string // of Archive
	Password    string // "": the archive is public

	Tokens     map[string]bool   // that are not used up
	Registered map[string]bool   // serial numbers
	Refused    map[string]bool   // serial numbers
	Devices    map[string]*Known // by KeyID
	Files      map[string][]byte // of the archive, by path
	Assigned   *protocol.Assignment
	Clock      func() time.Time

	// Lie answers in the server's place if it returns true. It is called
	// without the lock.
	Lie func(w http.ResponseWriter, r *http.Request) bool
	// Resign signs assignments; nil: with Assignment.
	Resign func(payload []byte) protocol.Signed

	Requests []string // paths, as they came
	CheckIns []protocol.CheckIn
}

// Known is a device as the server knows it.
type Known struct {
	Enrolment protocol.Enrolment
	Name      string
	Accepted  bool
	Retired   bool
	Session   uint64
	Sequence  uint64
	Hash      string
	Report    protocol.Report
	Counter   uint64 // that it said it has
}

// Start runs a server until the test ends: with a certificate of its own
// authority, or plain.
func Start(t testing.TB, encrypted bool) *Server {
	t.Helper()
	now := time.Now()
	_, assignment, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	archive, err := sign.Generate("Archive", "archive@aptfleet.example", now.Add(-24*time.Hour))
	must(t, err)
	certificate, err := archive.Certificate()
	must(t, err)
	s := &Server{
		Assignment: assignment, Archive: archive, Certificate: string(certificate), Tokens: map[string]bool{}, Registered: map[string]bool{},
		Refused: map[string]bool{}, Devices: map[string]*Known{}, Files: map[string][]byte{}, Clock: time.Now,
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /device/v1/enrolments", s.enrol)
	mux.HandleFunc("POST /device/v1/check-ins", s.checkIn)
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /", s.file)
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.Lock()
		s.Requests = append(s.Requests, r.URL.Path)
		lie := s.Lie
		s.Unlock()
		if lie == nil || !lie(w, r) {
			mux.ServeHTTP(w, r)
		}
	}))
	if encrypted {
		ca, chain := Authority(t, "127.0.0.1", now)
		web.TLS = &tls.Config{Certificates: []tls.Certificate{chain}}
		web.Config.ErrorLog = nil
		web.StartTLS()
		sum := sha256.Sum256(ca.Raw)
		s.CA, s.Fingerprint = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}), hex.EncodeToString(sum[:])
	} else {
		web.Start()
	}
	s.URL = web.URL
	t.Cleanup(func() {
		web.CloseClientConnections()
		web.Close()
	})
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Authority makes an authority and a certificate of it for one address.
func Authority(t testing.TB, address string, now time.Time) (*x509.Certificate, tls.Certificate) {
	t.Helper()
	issue := func(template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
		must(t, err)
		c, err := x509.ParseCertificate(der)
		must(t, err)
		return c
	}
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		return key
	}
	serial := func() *big.Int {
		n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
		must(t, err)
		return n
	}
	caKey, key := newKey(), newKey()
	root := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Aptfleet"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	ca := issue(root, root, caKey, caKey)
	leaf := issue(&x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: address}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IPAddresses: []net.IP{net.ParseIP(address)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, key, caKey)
	return ca, tls.Certificate{Certificate: [][]byte{leaf.Raw, ca.Raw}, PrivateKey: key}
}

// Token makes a one-time token.
func (s *Server) Token() string {
	s.Lock()
	defer s.Unlock()
	secret := make([]byte, 12)
	if _, err := rand.Read(secret); err != nil {
		panic(err)
	}
	token := "aft1_" + hex.EncodeToString(secret) + "_" + s.Fingerprint
	s.Tokens[token] = true
	return token
}

func (s *Server) open(w http.ResponseWriter, r *http.Request, purpose protocol.Purpose, key func(payload []byte, id string) ed25519.PublicKey) []byte {
	var signed protocol.Signed
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil || json.Unmarshal(body, &signed) != nil {
		fail(w, http.StatusBadRequest, protocol.Error{Code: "bad_request", Text: "it cannot be read"})
		return nil
	}
	public := key(signed.Payload, signed.Key)
	if public == nil {
		fail(w, http.StatusUnauthorized, protocol.Error{Code: protocol.CodeUnknownDevice, Text: "no device has the key " + signed.Key})
		return nil
	}
	payload, err := signed.Verify(public, purpose)
	if err != nil {
		fail(w, http.StatusUnauthorized, protocol.Error{Code: protocol.CodeBadSignature, Text: err.Error()})
		return nil
	}
	return payload
}

func (s *Server) enrol(w http.ResponseWriter, r *http.Request) {
	s.Lock()
	defer s.Unlock()
	var e protocol.Enrolment
	if s.open(w, r, protocol.ForEnrolment, func(payload []byte, _ string) ed25519.PublicKey {
		if json.Unmarshal(payload, &e) != nil || len(e.Key) != ed25519.PublicKeySize {
			return nil
		}
		return e.Key
	}) == nil {
		return
	}
	id := protocol.KeyID(e.Key)
	known := s.Devices[id]
	switch {
	case s.Refused[e.Serial]:
		fail(w, http.StatusForbidden, protocol.Error{Code: protocol.CodeRefused, Text: "an operator refused it"})
		return
	case known != nil && known.Retired:
		fail(w, http.StatusForbidden, protocol.Error{Code: protocol.CodeRetired, Text: "it is retired"})
		return
	case known == nil:
		known = &Known{Enrolment: e, Name: "dev-" + strings.ToLower(e.Serial)}
		s.Devices[id] = known
	}
	if s.Tokens[e.Token] || s.Registered[e.Serial] {
		known.Accepted = true
		delete(s.Tokens, e.Token)
		delete(s.Registered, e.Serial)
	}
	if !known.Accepted {
		Answer(w, http.StatusAccepted, protocol.Enrolled{Status: protocol.EnrolmentPending, Reason: "an operator must look at it", Time: s.Clock()})
		return
	}
	Answer(w, http.StatusOK, protocol.Enrolled{
		Status: protocol.EnrolmentAccepted, Device: known.Name, Pipeline: Pipeline, Product: Product, AssignmentKey: s.Assignment.Public().(ed25519.PublicKey),
		Archive: s.URL, ArchiveKey: s.Certificate, Password: s.Password, CA: string(s.CA), Time: s.Clock(),
	})
}

func (s *Server) checkIn(w http.ResponseWriter, r *http.Request) {
	s.Lock()
	defer s.Unlock()
	var known *Known
	var id string
	payload := s.open(w, r, protocol.ForCheckIn, func(_ []byte, key string) ed25519.PublicKey {
		if known, id = s.Devices[key], key; known == nil || !known.Accepted {
			return nil
		}
		return known.Enrolment.Key
	})
	if payload == nil {
		return
	}
	var in protocol.CheckIn
	switch err := json.Unmarshal(payload, &in); {
	case err != nil:
		fail(w, http.StatusBadRequest, protocol.Error{Text: err.Error()})
		return
	case in.Version != 1:
		fail(w, http.StatusBadRequest, protocol.Error{Code: protocol.CodeUnsupported, Text: "version"})
		return
	case known.Retired:
		fail(w, http.StatusForbidden, protocol.Error{Code: protocol.CodeRetired, Text: known.Name + " is retired"})
		return
	case in.Session < known.Session || in.Session == known.Session && in.Sequence <= known.Sequence:
		fail(w, http.StatusConflict, protocol.Error{Code: protocol.CodeReplay, Text: "it was here before", Session: known.Session})
		return
	}
	known.Session, known.Sequence, known.Counter = in.Session, in.Sequence, in.Counter
	s.CheckIns = append(s.CheckIns, in)
	out := protocol.CheckedIn{Time: s.Clock()}
	switch {
	case in.Report != nil && protocol.ReportHash(in.Report) == in.ReportHash:
		known.Hash, known.Report = in.ReportHash, protocol.Report{}
		if err := json.Unmarshal(in.Report, &known.Report); err != nil {
			fail(w, http.StatusBadRequest, protocol.Error{Text: err.Error()})
			return
		}
	case in.ReportHash != known.Hash:
		out.SendReport = true
	}
	if s.Assigned != nil {
		out.Assignment = s.assign(id, known, in)
	}
	w.Header().Set("Date", out.Time.UTC().Format(http.TimeFormat))
	if out.Assignment == nil && !out.SendReport {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	Answer(w, http.StatusOK, out)
}

// assign returns what a device lacks.
func (s *Server) assign(id string, known *Known, in protocol.CheckIn) *protocol.Signed {
	a := *s.Assigned
	if a.Device == "" {
		a.Device, a.Key = known.Name, id
	}
	if a.Content() == in.Assignment && a.Counter == in.Counter && a.Expires.Equal(in.Expires) {
		return nil
	}
	signed := s.Sign(a)
	return &signed
}

// Sign signs an assignment.
func (s *Server) Sign(a protocol.Assignment) protocol.Signed {
	payload, err := json.Marshal(a)
	if err != nil {
		panic(err)
	}
	if s.Resign != nil {
		return s.Resign(payload)
	}
	return protocol.Sign(s.Assignment, protocol.ForAssignment, payload)
}

// Assign makes the server assign a release to all its devices, with the next
// counter, for a week.
func (s *Server) Assign(release *protocol.AssignedRelease, change func(*protocol.Assignment)) {
	s.Lock()
	defer s.Unlock()
	counter := uint64(1)
	if s.Assigned != nil {
		counter = s.Assigned.Counter + 1
	}
	now := s.Clock().UTC().Truncate(time.Second)
	s.Assigned = &protocol.Assignment{
		Version: 1, Pipeline: Pipeline, Product: Product, Stage: "production", Counter: counter, Issued: now, Expires: now.Add(7 * 24 * time.Hour), Release: release,
	}
	if change != nil {
		change(s.Assigned)
	}
}

func (s *Server) file(w http.ResponseWriter, r *http.Request) {
	s.Lock()
	body, ok := s.Files[strings.TrimPrefix(r.URL.Path, "/")]
	password := s.Password
	s.Unlock()
	if user, given, _ := r.BasicAuth(); password != "" && (given != password || !strings.HasPrefix(user, "dev-")) {
		w.Header().Set("WWW-Authenticate", `Basic realm="archive"`)
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	if !ok {
		http.NotFound(w, r)
		return
	}
	if _, err := w.Write(body); err != nil {
		return // the client has seen enough
	}
}

// Last is the newest check-in that was taken.
func (s *Server) Last() protocol.CheckIn {
	s.Lock()
	defer s.Unlock()
	if len(s.CheckIns) == 0 {
		return protocol.CheckIn{}
	}
	return s.CheckIns[len(s.CheckIns)-1]
}

// Answer writes an answer of the protocol.
func Answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		return // the client has seen enough
	}
}

func fail(w http.ResponseWriter, status int, e protocol.Error) {
	Answer(w, status, protocol.ErrorBody{Error: e})
}

// index is what every release has: one package, whose file is not there.
var index = "Package: app\nVersion: 1\nArchitecture: all\nMaintainer: A <a@aptfleet.example>\nFilename: pool/app_1_all.deb\nSize: 1000\nSHA256: " +
	strings.Repeat("1", 64) + "\nDescription: x\n"

// Publish puts a release with the given bill of materials into the archive and
// returns how it is assigned.
func (s *Server) Publish(t testing.TB, state string, list []byte) *protocol.AssignedRelease {
	t.Helper()
	s.Lock()
	defer s.Unlock()
	base := Pipeline + "/states/" + state
	date := s.Clock().UTC().Add(-time.Minute).Truncate(time.Second)
	hash := func(text []byte) string {
		sum := sha256.Sum256(text)
		return hex.EncodeToString(sum[:])
	}
	packages := "main/binary-" + runtime.GOARCH + "/Packages"
	text := fmt.Sprintf("Origin: Aptfleet\nLabel: %s\nCodename: trixie\nDate: %s\nArchitectures: %s\nComponents: main\nAptfleet-State: %s\nSHA256:\n %s %d %s\n",
		Pipeline, date.Format(time.RFC1123), runtime.GOARCH, state, hash([]byte(index)), len(index), packages)
	signed, err := s.Archive.ClearSign([]byte(text), date)
	must(t, err)
	s.Files[base+"/dists/trixie/InRelease"] = signed
	s.Files[base+"/dists/trixie/Release"] = []byte(text)
	s.Files[base+"/dists/trixie/"+packages] = []byte(index)
	s.Files[Pipeline+"/boms/"+hash(list)] = list
	return &protocol.AssignedRelease{
		State: state, Base: base, Distribution: "trixie", Components: []string{"main"}, Release: hash([]byte(text)), BOM: hash(list), BOMSize: int64(len(list)),
	}
}
