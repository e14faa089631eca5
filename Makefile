# The two commands that matter: `make run` and `make test`. Both install what
# they need (they say what, and ask) and keep everything outside this tree.

GO ?= go
TAGS = -tags nomsgpack

# Go stamps programs with their commit. Where git refuses to tell it (a checkout
# that belongs to somebody else, as in a container), they are built without.
ifneq ($(shell git rev-parse HEAD >/dev/null 2>&1 || echo no),)
export GOFLAGS += -buildvcs=false
endif

.PHONY: help run purge test test-fast test-long faults-server faults-device bench bench-fleet bench-device build man fmt

help:
	@echo 'make run        the pipeline, its page and a device; Ctrl-C stops it'
	@echo '                YES=1 installs without asking, LISTEN=host:port, PUBLIC=host:port, DEVICE=none, FRESH=1'
	@echo 'make purge      remove everything that make run made'
	@echo 'make test       all checks, at most 20 minutes; installs what it needs'
	@echo 'make test-fast  formatting, vet and every package by itself; no device'
	@echo 'make test-long  make test, and what takes longer'
	@echo 'make faults-server'
	@echo '                kill the server N=500 times under load, cut the power of its disk CUTS=200 times; SEED=, TIME=40m, BREAK=fsync|rename-order'
	@echo 'make faults-device'
	@echo '                take the power from updating devices, N=1000 times; SEED=, TIME=40m, KEEP=DIR, BREAK=flush|try-sync|boot-sync|journal-sync;'
	@echo '                QEMU=30: kill a running virtual machine that often instead'
	@echo 'make bench      Aptfleet beside aptly and reprepro, with 5000 and 20000 packages; SIZE=60000, SIZE=debian, MEMBERS=gz'
	@echo 'make bench-fleet'
	@echo '                check-ins of DEVICES=100000 devices: how many a second, and what they cost the server'
	@echo 'make bench-device'
	@echo '                staging UPDATES=40 security updates of trixie on a device, beside apt-get dist-upgrade'
	@echo 'make build      the three programs, in bin/'
	@echo 'make man        their manual pages, in bin/man8/'

run:
	@test/demo/run.sh

purge:
	@test/demo/run.sh --purge

test:
	@test/run.sh

test-fast:
	@test/run.sh --fast

test-long:
	@APTFLEET_LONG=1 test/run.sh

faults-server:
	@$(GO) build $(TAGS) -o bin/faults-server ./test/faults/server
	@bin/faults-server

faults-device:
ifdef QEMU
	@APTFLEET_QEMU='$(QEMU)' APTFLEET_SEED='$(SEED)' $(GO) test $(TAGS) -count=1 -v -timeout 8h -run TestKilledWhileUpdating ./test/vm
else
	@$(GO) build $(TAGS) -o bin/faults-device ./test/faults/device
	@bin/faults-device
endif

SIZE = 20000
MEMBERS = xz
bench:
	@$(GO) run $(TAGS) ./test/bench -size '$(SIZE)' -members '$(MEMBERS)'

DEVICES = 100000
bench-fleet:
	@$(GO) run $(TAGS) ./test/bench -fleet '$(DEVICES)'

UPDATES = 40
bench-device:
	@$(GO) run $(TAGS) ./test/bench -device '$(UPDATES)'

build:
	$(GO) build $(TAGS) -trimpath -o bin/ ./builder ./repo-manager
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o bin/ ./device-updater

man: build
	for p in builder repo-manager device-updater; do bin/$$p man bin/man8; done

fmt:
	gofmt -l -w .
