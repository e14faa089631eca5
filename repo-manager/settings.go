package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/viper"

	"aptfleet/internal/term"
	"aptfleet/repo-manager/internal/backup"
)

const (
	defaultConfig      = "/etc/aptfleet/repo-manager.yaml"
	defaultListen      = ":8080"
	defaultListenAdmin = "127.0.0.1:8081"
)

// settings is everything an operator decides.
type settings struct {
	Data           string        `mapstructure:"data"`
	Listen         string        `mapstructure:"listen"`
	ListenHTTP     string        `mapstructure:"listen_http"` // the public listener once more, without TLS; "": no
	ListenAdmin    string        `mapstructure:"listen_admin"`
	URL            string        `mapstructure:"url"`
	URLAdmin       string        `mapstructure:"url_admin"`
	Hosts          []string      `mapstructure:"hosts"`
	Proxies        []string      `mapstructure:"proxies"` // addresses and networks
	TLS            string        `mapstructure:"tls"`     // tlsOff, tlsSelf, tlsFiles or ""
	TLSCertificate string        `mapstructure:"tls_certificate"`
	TLSKey         string        `mapstructure:"tls_key"`
	MaxUpload      int64         `mapstructure:"max_upload"` // bytes
	Reserve        int64         `mapstructure:"reserve"`    // bytes
	ValidFor       time.Duration `mapstructure:"valid_for"`
	KeepSuperseded time.Duration `mapstructure:"keep_superseded"`
	SupersededMax  int64         `mapstructure:"superseded_max"` // bytes
	IndexMax       int64         `mapstructure:"index_max"`      // bytes
	GCEvery        time.Duration `mapstructure:"gc_every"`       // below 0: never
	SocketGroup    string        `mapstructure:"socket_group"`
	Backup         backups       `mapstructure:"backup"`
}

// backups says where backups go that name no directory, and which of them the
// server makes by itself.
type backups struct {
	Dir   string        `mapstructure:"dir"`
	Every time.Duration `mapstructure:"every"` // 0: none
	Keep  int           `mapstructure:"keep"`  // of those made by itself; 0: all
}

// loadSettings reads the file at path, or the default file if path is "". The
// default file may be absent. A key that is not known is an error that names
// it: a misspelt setting must not pass for its default.
func loadSettings(path string) (settings, error) {
	var s settings
	optional := path == ""
	if optional {
		path = defaultConfig
	}
	v := viper.New()
	v.SetConfigFile(path)
	v.SetConfigType("yaml")
	if err := v.ReadInConfig(); err != nil {
		if optional && errors.Is(err, fs.ErrNotExist) {
			return s, nil
		}
		return s, term.WithHint(fmt.Errorf("cannot read settings: %w", err), "repo-manager serve --help lists them")
	}
	strict := func(d *mapstructure.DecoderConfig) { d.WeaklyTypedInput = false }
	if err := v.UnmarshalExact(&s, viper.DecodeHook(mapstructure.StringToTimeDurationHookFunc()), strict); err != nil {
		return s, term.WithHint(fmt.Errorf("cannot read settings of %s: %s", path, strings.Join(strings.Fields(err.Error()), " ")), "repo-manager serve --help lists them")
	}
	return s, nil
}

// override lets flags, and for the data directory its variable, win over the
// file, fills in defaults and refuses what cannot work.
func (s *settings) override(cmd *cobra.Command, flags settings, getenv func(string) string) error {
	data, err := cmd.Flags().GetString("data")
	if err != nil {
		return err
	}
	if s.Data == "" || cmd.Flags().Changed("data") || getenv("APTFLEET_DATA") != "" {
		s.Data = data
	}
	for _, o := range []struct {
		into     *string
		flag     string
		fallback string
	}{
		{&s.Listen, flags.Listen, defaultListen},
		{&s.ListenAdmin, flags.ListenAdmin, defaultListenAdmin},
		{&s.URL, flags.URL, ""},
		{&s.TLS, flags.TLS, ""},
	} {
		if o.flag != "" {
			*o.into = o.flag
		}
		if *o.into == "" {
			*o.into = o.fallback
		}
	}
	return s.validate()
}

func (s *settings) validate() error {
	for name, value := range map[string]*string{"url": &s.URL, "url_admin": &s.URLAdmin} {
		*value = strings.TrimRight(*value, "/")
		if u, err := url.Parse(*value); *value != "" && (err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "") {
			return term.Usagef("cannot use %s %q: want http://HOST or https://HOST, and maybe a path", name, *value)
		}
	}
	if err := s.validateTLS(); err != nil {
		return err
	}
	if _, err := s.proxies(); err != nil {
		return err
	}
	for name, value := range map[string]int64{
		"max_upload": s.MaxUpload, "reserve": s.Reserve, "valid_for": int64(s.ValidFor), "keep_superseded": int64(s.KeepSuperseded),
		"superseded_max": s.SupersededMax, "index_max": s.IndexMax,
		"backup.every": int64(s.Backup.Every), "backup.keep": int64(s.Backup.Keep),
	} {
		if value < 0 {
			return term.Usagef("cannot use %s: it is negative", name)
		}
	}
	for name, value := range map[string]time.Duration{"valid_for": s.ValidFor, "keep_superseded": s.KeepSuperseded, "backup.every": s.Backup.Every, "gc_every": s.GCEvery} {
		if value > 0 && value < time.Second { // a plain number counts nanoseconds
			return term.Usagef("cannot use %s %s: want at least 1s, for example %s: 2h", name, value, name)
		}
	}
	if s.Backup.Dir != "" && !filepath.IsAbs(s.Backup.Dir) {
		return term.Usagef("cannot use backup.dir %q: want an absolute path", s.Backup.Dir)
	}
	if s.Backup.Dir == "" && s.Backup.Every != 0 {
		return term.Usagef("cannot use backup.every: backup.dir is missing")
	}
	return nil
}

// adminHosts are the names by which browsers may reach the admin listener.
func (s *settings) adminHosts() []string {
	hosts := slices.Clone(s.Hosts)
	if u, err := url.Parse(s.URLAdmin); err == nil && u.Host != "" {
		hosts = append(hosts, u.Hostname())
	}
	return hosts
}

// isLoopback tells whether a listening address is reachable from this machine
// only.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return true // net.Listen says what is wrong with it
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// mustBeFinished refuses what a restore has not ended with.
func mustBeFinished(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, backup.Unfinished)); err == nil {
		return term.WithHint(fmt.Errorf("cannot open data directory %s: a restore into it was interrupted", dir),
			"repeat it: repo-manager restore BACKUPDIR --data "+dir)
	}
	return nil
}

// ensureEmptyOrOurs refuses a directory of somebody else's files, and one
// whose database is gone: an empty one would take versions a second time and
// offer nothing to devices.
func ensureEmptyOrOurs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("cannot open data directory: %w", err)
	}
	if err := mustBeFinished(dir); err != nil {
		return err
	}
	ours := map[string]bool{
		databaseFile: true, databaseFile + "-wal": true, databaseFile + "-shm": true, "keys": true, "blobs": true, "incoming": true,
		"mirrors": true, "public": true, "run": true, "solve": true, "intents": true, "damaged": true, "lock": true, "lost+found": true,
	}
	for _, e := range entries {
		if e.Name() == databaseFile {
			return nil
		}
	}
	for _, e := range entries {
		if !ours[e.Name()] {
			return term.WithHint(
				fmt.Errorf("cannot use %s as data directory: it has no database and holds %s, which is not of this program", dir, e.Name()),
				"name an empty or absent directory with --data")
		}
	}
	published, err := os.ReadDir(filepath.Join(dir, "public"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot open data directory: %w", err)
	}
	for _, e := range published {
		if e.Name() != "lost+found" {
			return term.WithHint(
				fmt.Errorf("cannot open data directory %s: its database %s is gone, and public/ holds an archive", dir, databaseFile),
				"restore the database from your backup")
		}
	}
	return nil
}
