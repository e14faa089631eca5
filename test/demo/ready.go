package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"

	"aptfleet/internal/protocol"
)

// guide is what a visitor reads once everything is up. Each block of commands
// works pasted into a shell, from any directory; TestMakeRun runs them as
// they stand here.
var guide = template.Must(template.New("guide").Parse(`ready: {{.Link}}

{{if not .Pending}}Everything is as you left it.{{else}}One promotion is pending: open the page and press "Review promotion" under production.{{if .Device}}
The device installs demo-app 3.0 beside what it runs, boots it on trial and commits it: about a minute.{{end}}{{end}}
{{if .Device}}
# Look at the device, at what it installs, and at what the promotion brings it
. {{.Dir}}/env
repo-manager device list
repo-manager device show {{.DeviceName}}
repo-manager product bom {{.Product}} production
repo-manager snapshot diff production canary --product {{.Product}} --changelogs
{{end}}
# Ship your own package
. {{.Dir}}/env
builder build {{.Source}}/examples/demo-app --version 3.1 --output {{.Dir}}/packages
builder upload {{.Dir}}/packages/demo-app_3.1_all.deb --to {{.Pipeline}}/{{.Repository}}
repo-manager promote dev --to canary --reason 'my own package'
repo-manager promote canary --to production --reason 'my own package'
{{if .Device}}
# Ship a broken version, and watch the device go back by itself; the page says why
. {{.Dir}}/env
builder build {{.Source}}/examples/demo-app/broken.yaml --version 4.0 --output {{.Dir}}/packages
builder upload {{.Dir}}/packages/demo-app_4.0_all.deb --to {{.Pipeline}}/{{.Repository}}
repo-manager promote dev --to canary --reason 'broken on purpose'
repo-manager promote canary --to production --reason 'broken on purpose'

# Configure the device: its service greets otherwise, on the device's console
. {{.Dir}}/env
repo-manager config set device:{{.DeviceName}} greeting ahoy
until grep 'ahoy from demo-app' {{.Dir}}/log/device.log; do sleep 1; done

# Keep the device as it is, whatever is promoted; device unhold ends that
. {{.Dir}}/env
repo-manager device hold {{.DeviceName}} --reason 'at the fair' --until 36h
{{end}}
# Attach another Debian machine's apt (as root, on that machine)
mkdir -p /etc/apt/keyrings
/usr/lib/apt/apt-helper download-file {{.Public}}/archive-keyring.asc /etc/apt/keyrings/aptfleet.asc
echo 'deb [signed-by=/etc/apt/keyrings/aptfleet.asc] {{.Public}}/{{.Pipeline}}/production {{.Distribution}} {{.Repository}}' >/etc/apt/sources.list.d/aptfleet.list
apt-get update
apt-get install -y demo-app

A machine that cannot reach {{.Public}} needs another address: PUBLIC=ADDRESS:PORT make run

# A new sign-in link, and what the archive holds
. {{.Dir}}/env
repo-manager login-link {{.Visitor}}
repo-manager stage list
{{if .Device}}
The device enrolled by itself, with its serial number. These two commands, already run, let it; docs/device-protocol.md has the rest:
{{range .Commands}}  {{.}}
{{end}}{{end}}
Ctrl-C stops everything; make run goes on from there; make purge removes {{.Dir}}.
`))

// stay tells the visitor that everything is up and returns when the context
// ends.
func (d *demo) stay(ctx context.Context, link string, dev *virtual) error {
	if err := d.environment(ctx); err != nil {
		return err
	}
	pending, err := d.pending(ctx)
	if err != nil {
		return err
	}
	text := &strings.Builder{}
	err = guide.Execute(text, map[string]any{
		"Link": link, "Dir": d.dir, "Source": d.source, "Public": d.server.Public, "Pipeline": pipelineName,
		"Repository": repository, "Distribution": distribution, "Visitor": visitor(), "Device": dev != nil, "Pending": pending,
		"DeviceName": deviceName, "Product": product, "Commands": []string{strings.Join(createProduct, " "), strings.Join(registerDevice, " ")},
	})
	if err != nil {
		return err
	}
	d.ready = true
	line, rest, _ := strings.Cut(text.String(), "\n")
	fmt.Println(line)
	fmt.Println(rest)
	<-ctx.Done()
	return context.Cause(ctx)
}

// environment writes the file that puts programs and credentials into a
// visitor's shell, readable by whoever typed `make run`.
func (d *demo) environment(ctx context.Context) error {
	name := filepath.Join(d.dir, "env")
	if _, err := os.Stat(name); err != nil {
		token, err := d.server.CreateToken(ctx, protocol.NewToken{User: visitor(), Label: "make run", Roles: []string{"admin"}})
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(d.dir, "token"), []byte(token.Secret), 0o600); err != nil {
			return fmt.Errorf("cannot keep the visitor's token: %w", err)
		}
	}
	token, err := os.ReadFile(filepath.Join(d.dir, "token"))
	if err != nil {
		return fmt.Errorf("cannot read the visitor's token: %w", err)
	}
	text := fmt.Sprintf("export PATH=%s:$PATH\nexport APTFLEET_SERVER=%s\nexport APTFLEET_TOKEN=%s\n",
		filepath.Join(d.dir, "bin"), d.server.Admin, token)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	for _, path := range []string{name, filepath.Join(d.dir, "packages")} {
		if uid, err := strconv.Atoi(os.Getenv("SUDO_UID")); err == nil {
			if err := os.Chown(path, uid, -1); err != nil {
				return fmt.Errorf("cannot hand %s to the visitor: %w", path, err)
			}
		}
	}
	return nil
}
