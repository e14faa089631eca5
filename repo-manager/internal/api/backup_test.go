package api

import (
	"net/http/httptest"
	"strings"
	"testing"

	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/backup"
)

// Who came through the Unix socket is told apart from who has a token only:
// the service decides by it where a backup may go.
func TestBackupTellsWhereItIsAskedFrom(t *testing.T) {
	h, w, _ := newAPI(t)
	const body = `{"dir":"/srv/backup","without_keys":true}`
	if rec := ask(t, h, "POST", "/api/v1/backups", body, bearer("admin")); rec.Code != 202 {
		t.Errorf("%d: %s", rec.Code, rec.Body)
	}
	if want := (backup.Order{Dir: "/srv/backup", WithoutKeys: true}); w.ordered != want {
		t.Errorf("with a token: %+v", w.ordered)
	}
	r := httptest.NewRequest("POST", "/api/v1/backups", strings.NewReader(body))
	r = r.WithContext(access.NewContext(r.Context(), access.Identity{User: "root", Roles: []string{"admin"}, Via: "socket"}))
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	if want := (backup.Order{Dir: "/srv/backup", WithoutKeys: true, Local: true}); rec.Code != 202 || w.ordered != want {
		t.Errorf("on the socket: %d, %+v", rec.Code, w.ordered)
	}
}
