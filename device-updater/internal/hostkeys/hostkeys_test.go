package hostkeys_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/device-updater/internal/hostkeys"
)

func command(ctx context.Context, argv ...string) error {
	if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// TestMake makes keys once, as the drop-in for sshd names them.
func TestMake(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "identity/ssh")
	if err := os.MkdirAll(dir+".work", 0o755); err != nil { // the power went
		t.Fatal(err)
	}
	if err := hostkeys.Make(t.Context(), dir, command); err != nil {
		t.Fatal(err)
	}
	before := map[string]string{}
	for _, kind := range hostkeys.Kinds {
		path := filepath.Join(dir, "ssh_host_"+kind+"_key")
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		out, err := exec.Command("ssh-keygen", "-l", "-f", path).CombinedOutput()
		if err != nil || !strings.Contains(string(out), strings.ToUpper(kind)) {
			t.Errorf("%s: %s, %v", kind, out, err)
		}
		before[path] = string(out)
	}
	if err := hostkeys.Make(t.Context(), dir, func(context.Context, ...string) error { return errors.New("again") }); err != nil {
		t.Errorf("they are made again: %v", err)
	}
	dropIn, err := os.ReadFile("../../package/sshd.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range hostkeys.Kinds {
		if !strings.Contains(string(dropIn), "\nHostKey /sysroot/identity/ssh/ssh_host_"+kind+"_key\n") {
			t.Errorf("the drop-in does not name the %s key", kind)
		}
	}
}

// TestAHalfMadeSet is none.
func TestAHalfMadeSet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ssh")
	n := 0
	err := hostkeys.Make(t.Context(), dir, func(context.Context, ...string) error {
		if n++; n == 2 {
			return errors.New("no entropy")
		}
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "no entropy") {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
}
