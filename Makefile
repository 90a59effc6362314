# make demo   a GPU container under Podman, on a simulated node where there is no driver
# make test   everything that CI runs
# make bench  create, start, delete, exec and state beside crun and runc
SHELL := /bin/bash
TOP := $(CURDIR)
TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(TOP)/target)
ARCH := $(shell uname -m)
TRIPLE := $(ARCH)-unknown-linux-gnu
PROFILE ?= release
# The directory cargo names after a profile.
OUT = $(TARGET_DIR)/$(TRIPLE)/$(PROFILE)
TOOLS = $(TARGET_DIR)/$(PROFILE)

.PHONY: all setup build tools images demo test unit suites bench lint clean

all: build

setup:
	@tests/setup/packages.sh

# Static: the runtime is started several times per container, and next to images whose libraries it must not load.
build: setup
	RUSTFLAGS="-C target-feature=+crt-static" LIBSECCOMP_LINK_TYPE=static LIBSECCOMP_LIB_PATH=/usr/lib/$(ARCH)-linux-gnu \
		cargo build --locked --profile $(PROFILE) --target $(TRIPLE) -p fleet-nvidia
	cargo build --locked --profile $(PROFILE) -p fleet-nvidia-ctl

tools: setup
	cargo build --locked --profile $(PROFILE) -p fleet-sim -p fleet-sim-nvml

images: setup
	@tests/setup/images.sh $(TOP)/.state/images

demo: build tools images
	@FLEET_HOST_CDI=$$(for d in /var/run/cdi /etc/cdi; do [ -n "$$(ls $$d 2>/dev/null)" ] && echo $$d && break; done) \
		bash -c 'if [ -n "$$FLEET_HOST_CDI" ]; then rm -rf .state/host-cdi; cp -r "$$FLEET_HOST_CDI" .state/host-cdi; export FLEET_HOST_CDI=$(TOP)/.state/host-cdi; fi; exec tests/isolate tests/demo.sh $(OUT)/fleet-nvidia $(TOOLS)'

lint: setup
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

unit: setup
	rm -f .state/skipped; mkdir -p .state
	cargo test --locked --workspace --exclude fleet-tests

suites: PROFILE = fast
suites:
	$(MAKE) PROFILE=fast build tools images
	cargo test --locked -p fleet-tests --no-run
	RUNTIME_UNDER_TEST=$(TARGET_DIR)/$(TRIPLE)/fast/fleet-nvidia FLEET_PROGRAMS=$(TARGET_DIR)/fast FLEET_CTL=$(TARGET_DIR)/fast/fleet-nvidia-ctl \
		FLEET_STATE=$(TOP)/.state FLEET_SKIPPED=$(TOP)/.state/skipped \
		tests/isolate cargo test --locked --offline -p fleet-tests -- --test-threads=1

test: lint unit suites
	@if [ -s .state/skipped ]; then echo "$$(sort -u .state/skipped | wc -l) skipped on this machine:"; sort -u .state/skipped; else echo "nothing was skipped"; fi

bench: build tools images
	RUNTIME_UNDER_TEST=$(OUT)/fleet-nvidia tests/bench.sh $(TOOLS)

clean:
	cargo clean
	rm -rf .state
