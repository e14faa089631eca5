package agent_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"aptfleet/device-updater/internal/agent"
	"aptfleet/internal/protocol"
)

func TestReports(t *testing.T) {
	got := make(chan protocol.Report, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var report protocol.Report
		if r.Method != http.MethodPost || r.URL.Path != "/device/v1/report" || r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("%s %s %q", r.Method, r.URL.Path, r.Header.Get("Authorization"))
		}
		if err := json.NewDecoder(r.Body).Decode(&report); err != nil {
			t.Error(err)
		}
		got <- report
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	a := agent.New(server.URL, "secret", server.Client())
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { a.Run(ctx); close(done) }()
	a.Report(protocol.Report{Phase: "INSTALL"})
	if r := <-got; r.Phase != "INSTALL" {
		t.Errorf("%+v", r)
	}
	// What is reported just before the end is still delivered.
	stop()
	a.Report(protocol.Report{Phase: "REBOOT"})
	<-done
	select {
	case r := <-got:
		if r.Phase != "REBOOT" {
			t.Errorf("%+v", r)
		}
	default:
		t.Error("the last report was not delivered")
	}
	if err := a.Err(); err != nil {
		t.Error(err)
	}
}

// TestNewestWins: while the server does not take reports they do not queue up.
func TestNewestWins(t *testing.T) {
	var got []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var report protocol.Report
		if err := json.NewDecoder(r.Body).Decode(&report); err != nil {
			t.Error(err)
		}
		got = append(got, report.Phase)
	}))
	defer server.Close()
	a := agent.New(server.URL, "secret", server.Client())
	for _, phase := range []string{"CHECK", "DOWNLOAD", "INSTALL"} {
		a.Report(protocol.Report{Phase: phase})
	}
	a.Flush(t.Context())
	a.Flush(t.Context())
	if strings.Join(got, " ") != "INSTALL" {
		t.Errorf("delivered %v", got)
	}
}

func TestFailureIsKept(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no such device", http.StatusUnauthorized)
	}))
	a := agent.New(server.URL, "secret", server.Client())
	a.Report(protocol.Report{})
	a.Flush(t.Context())
	if err := a.Err(); err == nil || !strings.Contains(err.Error(), "401") || !strings.Contains(err.Error(), "no such device") {
		t.Errorf("%v", err)
	}
	server.Close()
	a.Report(protocol.Report{})
	a.Flush(t.Context())
	if err := a.Err(); err == nil || !strings.Contains(err.Error(), "cannot report to the server: ") {
		t.Errorf("%v", err)
	}
}
