package update

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
)

// fullDisk takes so many bytes.
type fullDisk int

func (d *fullDisk) Write(p []byte) (int, error) {
	if *d -= fullDisk(len(p)); *d < 0 {
		return 0, syscall.ENOSPC
	}
	return len(p), nil
}

// TestTheLogFillsTheDisk: the installation goes on without it, and if it fails
// that says nothing about the release.
func TestTheLogFillsTheDisk(t *testing.T) {
	disk := fullDisk(10)
	log := &boundedLog{to: &disk, left: maxLog}
	for range 3 {
		if n, err := io.WriteString(log, "Unpacking\n"); n != 10 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	if err := log.explain(errors.New("apt-get ended with status 100")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
}

func TestBoundedLog(t *testing.T) {
	failed := errors.New("apt-get ended with status 100")
	for _, c := range []struct {
		name, text, want string
		full             bool
	}{
		{"silent", "Reading package lists...\n", "apt-get ended with status 100", false},
		{"apt", "E: one\nE: two\n", "apt-get ended with status 100: one", false},
		{
			"dpkg goes before apt",
			"E: early\ndpkg: error processing package app (--configure):\n installed app package post-installation script subprocess returned error exit status 1\ndpkg: error processing package other (--configure):\nE: Sub-process /usr/bin/dpkg returned an error code (1)\n",
			"apt-get ended with status 100: dpkg: error processing package app (--configure)", false,
		},
		{"disk full", "dpkg: error processing archive x (--unpack):\n cannot copy extracted data: failed to write (No space left on device)\n", "dpkg: error processing archive x (--unpack)", true},
		{"no text", "\xff\xfe\nE: \xff\n", "?", false},
		{"an endless line", strings.Repeat("x", 3*maxLog), "apt-get ended with status 100", false},
	} {
		var kept bytes.Buffer
		log := &boundedLog{to: &kept, left: maxLog}
		// Lines arrive in pieces.
		for _, piece := range strings.SplitAfter(c.text, "e") {
			if n, err := io.WriteString(log, piece); n != len(piece) || err != nil {
				t.Fatalf("%s: %d, %v", c.name, n, err)
			}
		}
		err := log.explain(failed)
		if !errors.Is(err, failed) || !strings.Contains(err.Error(), c.want) || errors.Is(err, syscall.ENOSPC) != c.full {
			t.Errorf("%s: %v", c.name, err)
		}
		if kept.Len() != min(len(c.text), maxLog) || len(log.line) > 1024 {
			t.Errorf("%s: %d bytes kept", c.name, kept.Len())
		}
	}
}
