#!/bin/bash
# make run: says what is missing, installs it if it may, builds, and hands over
# to the demo program. make purge (--purge) removes everything it made.
#
#   YES=1          install Debian packages without asking
#   DEVICE=none    the server part alone (containers, machines without loop devices)
#   LISTEN=H:P     address of the page; the default is a free port on 127.0.0.1
#   PUBLIC=H:P     address of the archive, for other machines; the default is a free port on 127.0.0.1
#   FRESH=1        start from nothing; downloads are kept
#   DEMO_DIR=DIR   the one directory everything lives in
set -euo pipefail
cd "$(dirname "$0")/../.."
export DEMO_DIR=${DEMO_DIR:-/var/lib/aptfleet-demo} DEVICE=${DEVICE:-nspawn} LISTEN=${LISTEN:-} PUBLIC=${PUBLIC:-} FRESH=${FRESH:-} YES=${YES:-}
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive

say() { printf '%s\n' "$*" >&2; }
die() { say "make run: $1"; [ -z "${2:-}" ] || say "  next: $2"; exit 1; }

case $DEVICE in nspawn | none) ;; *) die "cannot use DEVICE=$DEVICE: it is nspawn or none" ;; esac
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || die 'cannot mount and boot a device without root' 'run it as root, or: apt-get install sudo'
	exec sudo --preserve-env=PATH,DEMO_DIR,DEVICE,LISTEN,PUBLIC,FRESH,YES,GOPROXY,GOFLAGS env PATH="$PATH" test/demo/run.sh "$@"
fi

if [ "${1:-}" = --purge ]; then
	[ -e "$DEMO_DIR" ] || { say "nothing to remove: $DEMO_DIR does not exist"; exit 0; }
	[ -e "$DEMO_DIR/.aptfleet-demo" ] || die "cannot remove $DEMO_DIR: make run did not make it" 'set DEMO_DIR to the directory that make run used'
	exec 9<"$DEMO_DIR/.aptfleet-demo"
	flock --nonblock 9 || die "cannot remove $DEMO_DIR: make run is running in it" 'press Ctrl-C in its terminal first'
	rm -rf --one-file-system "$DEMO_DIR"
	say "removed $DEMO_DIR"
	exit 0
fi

# Preflight: everything at once, each with its command.
problems=()
problem() { problems+=("$1"$'\n'"      $2"); }
wanted_go=$(sed -n 's/^go //p' go.mod)
if ! command -v go >/dev/null; then
	problem 'Go is not installed' "install Go $wanted_go or newer from https://go.dev/dl, and put it on PATH"
elif have=$(cd / && go env GOVERSION) && have=${have#go} &&
	[ "$(printf '%s\n' "$wanted_go" "$have" | sort -V | head -n 1)" != "$wanted_go" ] && [ "$(go env GOTOOLCHAIN)" = local ]; then
	problem "Go is $have, this needs $wanted_go" 'GOTOOLCHAIN=auto make run    (or install a newer Go)'
fi
if ! command -v apt-get >/dev/null; then
	problem 'this is not a Debian machine: no apt-get' 'run it on Debian 12 or 13'
fi
if [ "$DEVICE" = nspawn ]; then
	[ -e /dev/loop-control ] || modprobe loop 2>/dev/null || problem 'no loop devices' 'modprobe loop    (or DEVICE=none make run)'
	grep -qw btrfs /proc/filesystems || modprobe btrfs 2>/dev/null || problem 'the kernel has no btrfs' 'modprobe btrfs    (or DEVICE=none make run)'
fi
parent=$DEMO_DIR
while [ ! -d "$parent" ]; do parent=$(dirname "$parent"); done
need_gb=5 && [ "$DEVICE" = none ] && need_gb=1
free_gb=$(df --output=avail -BG "$parent" | tail -n 1 | tr -dc 0-9)
[ "$free_gb" -ge "$need_gb" ] || problem "$parent has $free_gb GB free, this needs $need_gb" 'DEMO_DIR=/some/larger/disk/aptfleet-demo make run'

missing=()
while read -r package rest; do
	[ "$DEVICE" = nspawn ] || [[ $rest == *server:* ]] || continue
	[ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done < <(grep -v '^#' test/demo/packages.txt)

sizes() { # what apt would fetch: the large ones by name, and the sum
	apt-get install --print-uris -qq --no-install-recommends "${missing[@]}" 2>/dev/null | awk '
		function row(name, bytes) { printf "      %-28s %8.1f MB\n", name, bytes / 1e6 }
		{ n++; sum += $3; split($2, f, "_"); if ($3 >= 2e6) row(f[1], $3); else { small++; rest += $3 } }
		END { if (small) row(small " smaller ones", rest); if (n) row("together, " n " packages", sum) }'
}
if [ ${#missing[@]} -gt 0 ]; then
	list=$(sizes || true)
	if [ -z "$list" ]; then
		say 'asking apt what that takes (apt-get update)'
		apt-get -qq update >&2 || say 'apt-get update failed; see above'
		list=$(sizes || true)
	fi
	problem "Debian packages are not installed: ${missing[*]}" "apt-get install --no-install-recommends ${missing[*]}"
	[ -z "$list" ] || problems[-1]+=$'\n'"$list"
fi
if [ ${#problems[@]} -gt 0 ]; then
	say 'make run needs:'
	for p in "${problems[@]}"; do say "  - $p"; done
	[ ${#missing[@]} -gt 0 ] && [ ${#problems[@]} = 1 ] || exit 1
	if [ "$YES" != 1 ]; then
		[ -t 0 ] || die 'cannot ask whether to install them: there is no terminal' 'YES=1 make run'
		read -rp 'Install them now? [Y/n] ' answer
		case $answer in '' | [Yy]*) ;; *) exit 1 ;; esac
	fi
	say 'installing them'
	log=$(mktemp)
	apt-get -qq -y --no-install-recommends install "${missing[@]}" >"$log" 2>&1 || {
		tail -n 20 "$log" >&2
		die "cannot install the Debian packages; all that apt said is in $log" 'apt-get update, then make run again'
	}
	rm -f "$log"
fi

mkdir -p "$DEMO_DIR/bin"
exec 9>>"$DEMO_DIR/.aptfleet-demo"
flock --nonblock 9 || die "make run is already running in $DEMO_DIR" 'press Ctrl-C in its terminal, or set DEMO_DIR'
say 'building the server (the first time takes a minute or two)'
go build -tags nomsgpack -o "$DEMO_DIR/bin/" ./builder ./repo-manager ./test/demo

# Everything runs in namespaces of its own: when this ends, however it ends,
# the kernel removes every mount and process, and with them the loop devices.
exec unshare --mount --propagation slave --pid --fork --kill-child=SIGTERM --mount-proc \
	"$DEMO_DIR/bin/demo" --source "$PWD"
