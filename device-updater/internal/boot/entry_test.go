package boot_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/device-updater/internal/boot"
)

func TestEntry(t *testing.T) {
	base := map[string]string{
		"boot/vmlinuz-6.12.9+deb13-amd64": "k", "boot/initrd.img-6.12.9+deb13-amd64": "i", "usr/lib/modules/6.12.9+deb13-amd64/x": "m",
		"boot/vmlinuz-6.12.48+deb13-amd64": "k", "boot/initrd.img-6.12.48+deb13-amd64": "i", "usr/lib/modules/6.12.48+deb13-amd64/x": "m",
		"usr/lib/aptfleet/kernel.d/20-b.conf": "# of the board\nconsole=ttyS0,115200n8 quiet # loud is off\n",
		"usr/lib/aptfleet/kernel.d/10-a.conf": "panic_on_oops=1\n",
	}
	for _, c := range []struct {
		name   string
		change map[string]string // "" removes
		want   string
		err    string
	}{
		{name: "the newest by version, not by name",
			want: "set kernel=\"/boot/vmlinuz-6.12.48+deb13-amd64\"\nset initrd=\"/boot/initrd.img-6.12.48+deb13-amd64\"\nset options=\"panic_on_oops=1 console=ttyS0,115200n8 quiet\"\n"},
		{name: "no initrd", change: map[string]string{"boot/initrd.img-6.12.48+deb13-amd64": ""}, err: "/boot/initrd.img-6.12.48+deb13-amd64 is no file"},
		{name: "no modules", change: map[string]string{"usr/lib/modules/6.12.48+deb13-amd64/x": ""}, err: "kernel 6.12.48+deb13-amd64 has no modules"},
		{name: "a kernel with a strange name", change: map[string]string{"boot/vmlinuz-9\";halt": "k"}, err: "is no kernel's"},
		{name: "a command as argument", change: map[string]string{"usr/lib/aptfleet/kernel.d/30.conf": "x\";halt"}, err: "not a kernel argument"},
		{name: "a variable as argument", change: map[string]string{"usr/lib/aptfleet/kernel.d/30.conf": "a=$root"}, err: "not a kernel argument"},
		{name: "the trial's mark", change: map[string]string{"usr/lib/aptfleet/kernel.d/30.conf": "aptfleet.trial=1"}, err: "for the loader to say"},
		{name: "another root", change: map[string]string{"usr/lib/aptfleet/kernel.d/30.conf": "root=/dev/sda1"}, err: "for the loader to say"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, files := range []map[string]string{base, c.change} {
				for name, text := range files {
					path := filepath.Join(dir, name)
					if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
						t.Fatal(err)
					}
					if text == "" {
						if err := errors.Join(os.Remove(path)); err != nil {
							t.Fatal(err)
						}
						os.Remove(filepath.Dir(path)) // if it is empty
						continue
					}
					if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			root, err := os.OpenRoot(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			err = boot.WriteEntry(root)
			got, readErr := os.ReadFile(filepath.Join(dir, "boot/aptfleet/entry.cfg"))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || readErr == nil {
					t.Errorf("%v, want %q; wrote %q", err, c.err, got)
				}
				return
			}
			if err != nil || string(got) != c.want {
				t.Errorf("%v, wrote\n%s, want\n%s", err, got, c.want)
			}
		})
	}
}

func TestNoKernel(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := boot.WriteEntry(root); !errors.Is(err, boot.ErrNoKernel) {
		t.Error(err)
	}
}
