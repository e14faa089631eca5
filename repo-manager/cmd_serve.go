package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"aptfleet/internal/term"
)

func newServeCommand(io *term.IO) *cobra.Command {
	var flags settings
	var config string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Run the server on a data directory. An empty or absent directory becomes a new
archive: database, archive key and a Debian package of the archive's keyring
are made, and the way to back the key up is told.

There are three listeners: the public one serves the archive and takes reports
of devices; the admin one has the API and the web pages and stays on loopback
addresses unless it speaks TLS; the Unix socket
DATA/run/repo-manager.sock is for commands on this machine. Once all of them
answer, DATA/run/addresses.json says where they are.

With --tls self the first two speak TLS with certificates that the server issues
and renews itself: from a CA that it makes once, whose certificate is to be had
at /ca.pem and from "repo-manager key ca". With --tls files they use those of
the settings, and take them up when they change or on SIGHUP. Private pipelines
are served over TLS, to this machine, and behind proxies that the settings
name. docs/tls.md has more.

Settings come from ` + defaultConfig + `, if it exists, or from the file
that --config names, as YAML:

  listen: ":8080"                       # public; port 0 takes a free one
  listen_http: ":80"                    # with tls: public pipelines without it, for apt that lacks the CA
  listen_admin: "127.0.0.1:8081"
  url: https://packages.example.com     # of the public listener, as others see it
  url_admin: https://fleet.example.com  # of the admin listener, in login links
  hosts: [fleet.example.com]            # names browsers may use for the admin listener
  proxies: [127.0.0.1, 10.1.0.0/16]     # whose X-Forwarded-For and X-Forwarded-Proto are believed
  tls: self                             # or files, or off: TLS on both network listeners
  tls_certificate: /etc/…               # PEM, with the chain; without "tls" for the admin listener alone
  tls_key: /etc/…
  max_upload: 4294967296                # bytes of one package
  reserve: 33554432                     # bytes of disk that uploads leave free
  valid_for: 168h                       # how long a stage's InRelease is good
  keep_superseded: 1h                   # how long replaced index files stay
  superseded_max: 4294967296            # bytes of them that a stage may keep
  index_max: 17179869184                # bytes of index files of past states; beyond it a gc runs at once
  gc_every: 24h                         # how often a gc runs by itself; -1s: never
  socket_group: aptfleet                # may use the Unix socket
  backup:                               # see "repo-manager backup"
    dir: /srv/backup                    # the only place that requests over the network may name
    every: 24h                          # made by itself; without it none is
    keep: 7                             # of those; older ones are removed
  data: ` + defaultData + `

Flags win over the file. SIGTERM and SIGINT end the server after what it does
at that moment. Exit status 11: another server holds the data directory.`,
		Example: `  repo-manager serve --data /srv/aptfleet --listen :8080
  repo-manager serve --data /srv/aptfleet --listen :443 --tls self --url https://packages.example.com`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			given, err := loadSettings(config)
			if err != nil {
				return err
			}
			if err := given.override(cmd, flags, os.Getenv); err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(io.Err, nil))
			if err := startProfiling(os.Getenv); err != nil {
				return err
			}
			server, err := openServer(cmd.Context(), given, log, func(format string, args ...any) {
				fmt.Fprintf(io.Err, format+"\n", args...)
			})
			if err != nil {
				return err
			}
			hangups := make(chan os.Signal, 1)
			signal.Notify(hangups, syscall.SIGHUP)
			defer close(hangups)
			defer signal.Stop(hangups)
			go func() {
				for range hangups {
					server.reload()
				}
			}()
			return server.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&config, "config", "", "`file` with settings, instead of "+defaultConfig)
	f.StringVar(&flags.Listen, "listen", "", "`address` of the public listener: archive and devices (default "+defaultListen+")")
	f.StringVar(&flags.ListenAdmin, "listen-admin", "", "`address` of the admin listener: API and pages (default "+defaultListenAdmin+")")
	f.StringVar(&flags.TLS, "tls", "", "`off`, self or files: what listeners prove themselves with, see above")
	f.StringVar(&flags.URL, "url", "", "`URL` of the public listener as apt reaches it")
	return cmd
}
