package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
)

// Nothing of what the admin listener serves is behind the public one, whoever
// asks: its routes are those that the walk of package api plays.
func TestThePublicDoorHasNoAPI(t *testing.T) {
	r := serve(t, local(filepath.Join(shortDir(t), "data")))
	_, err := r.api().CreateUser(t.Context(), "ann", []string{"admin"})
	must(t, err)
	token, err := r.api().CreateToken(t.Context(), protocol.NewToken{User: "ann"})
	must(t, err)
	text, err := os.ReadFile("internal/api/testdata/roles.txt")
	must(t, err)
	asked := 0
	for line := range strings.Lines(string(text)) {
		method, rest, _ := strings.Cut(line, " ")
		path, _, _ := strings.Cut(rest, " ")
		if !strings.HasPrefix(path, "/api/") {
			continue
		}
		asked++
		resp, body := get(t, method, r.listeners.addresses.Public+path, "Authorization: Bearer "+token.Secret)
		if resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s %s at the public listener: %d %s", method, path, resp.StatusCode, body)
		}
	}
	if asked < 50 {
		t.Errorf("only %d routes were asked for", asked)
	}
}

// When a token was used last is known after a stop.
func TestLastUseSurvivesAStop(t *testing.T) {
	settings := local(filepath.Join(shortDir(t), "data"))
	r := serve(t, settings)
	_, err := r.api().CreateUser(t.Context(), "ci", []string{"viewer"})
	must(t, err)
	token, err := r.api().CreateToken(t.Context(), protocol.NewToken{User: "ci"})
	must(t, err)
	ci, err := client.New(client.Options{Server: r.listeners.addresses.Admin, Token: token.Secret})
	must(t, err)
	me, err := ci.WhoAmI(t.Context())
	if err != nil || me.User != "ci" || me.Via != "token:ci" {
		t.Errorf("the token is of %+v, %v", me, err)
	}
	must(t, r.stop())
	tokens, err := serve(t, settings).api().Tokens(t.Context())
	if err != nil || len(tokens) != 1 || tokens[0].Used.IsZero() || tokens[0].Used.Before(token.Created) {
		t.Errorf("after a stop: %+v, %v", tokens, err)
	}
}
