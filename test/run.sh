#!/bin/bash
# Runs the tests: installs the Debian packages they need, then the fast checks,
# then everything that starts servers, devices and browsers. Each step has a
# time limit; the last line counts what passed.
#
#   test/run.sh [--fast]      APTFLEET_LONG=1 adds what takes longer, APTFLEET_SEED=N repeats the choices of a siege
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || { echo "make test: devices need root: run it as root, or install sudo" >&2; exit 1; }
	exec sudo --preserve-env=PATH,GOFLAGS,GOPROXY,APTFLEET_LONG,APTFLEET_SEED,APTFLEET_CACHE,APTFLEET_ARTIFACTS,CI env PATH="$PATH" test/run.sh "$@"
fi
command -v go >/dev/null || { echo "make test: cannot find go: install Go $(sed -n 's/^go //p' go.mod) or newer from https://go.dev/dl" >&2; exit 1; }

fast=false
[ "${1:-}" = --fast ] && fast=true
long=${APTFLEET_LONG:-}
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
failed=

step() { # step SECONDS NAME COMMAND…: a failing step is remembered, the next ones still run
	local limit=$1 name=$2 start=$SECONDS
	shift 2
	echo "== $name"
	if timeout --kill-after=30 "$limit" "$@"; then
		echo "== $name: done in $((SECONDS - start)) s"
	else
		echo "== $name: FAILED (exit $?, limit $limit s) after $((SECONDS - start)) s"
		failed="$failed${failed:+, }$name"
	fi
}

install_packages() {
	local wanted missing=()
	mapfile -t wanted < <(sed 's/#.*//; s/[[:space:]]//g; /^$/d' test/packages.txt | sort -u)
	for package in "${wanted[@]}"; do
		[ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
	done
	[ ${#missing[@]} = 0 ] && return 0
	echo "installing ${missing[*]}"
	apt-get -qq update
	apt-get -qq -y --no-install-recommends install "${missing[@]}" >"$results/apt.log" 2>&1 || {
		cat "$results/apt.log"
		return 1
	}
}

gotest() { # gotest NAME FLAGS… PACKAGES…
	local name=$1
	shift
	go tool gotestsum --format pkgname-and-test-fails --hide-summary skipped --jsonfile "$results/$name.json" -- -tags nomsgpack "$@"
}

style() {
	local unformatted
	unformatted=$(gofmt -l .)
	[ -z "$unformatted" ] || { printf 'not formatted (make fmt):\n%s\n' "$unformatted"; return 1; }
	go vet -tags nomsgpack ./...
}
export -f install_packages gotest style
export results

step 300 'Debian packages' bash -euc install_packages
[ -z "$failed" ] || { echo "cannot install what the tests need; see above" >&2; exit 1; }

mapfile -t all < <(go list -tags nomsgpack ./...)
whole='^aptfleet/test/'
mapfile -t inner < <(printf '%s\n' "${all[@]}" | grep -Ev "$whole")
mapfile -t outer < <(printf '%s\n' "${all[@]}" | grep -E "$whole")

step 420 'formatting and vet' bash -euc style
# The tests end a minute before their step does, and say where they were.
limit=600
[ -n "$long" ] && limit=9000
step $limit 'packages' bash -euc 'gotest packages -timeout "$1" "${@:2}"' - $((limit - 60))s "${inner[@]}"
if ! $fast && [ -z "$failed" ]; then
	limit=1200
	[ -n "$long" ] && limit=14400
	step $limit 'the pipeline as a whole' bash -euc 'gotest whole -count=1 -p 2 -timeout "$1" "${@:2}"' - $((limit - 60))s "${outer[@]}"
	echo '== how often the server was killed, or the power of a device cut, and when'
	sed -n 's/.*"Output":" *[a-z]*_test\.go:[0-9]*: \(\(kill -9\|power cuts\) .*\)\\n".*/\1/p' "$results/whole.json" || true
fi

count() { cat "$results"/*.json 2>/dev/null | grep -c "\"Action\":\"$1\".*\"Test\":" || true; }
[ -z "$failed" ] || echo "failed: $failed"
echo "$(count pass) passed, $(count fail) failed, $(count skip) skipped"
[ -z "$failed" ]
