# make demo   a GPU container under Podman, on a simulated node where there is no driver
# make test   everything that CI runs
# make peers  the suites over crun and runc, to check the suites
# make vm     Debian trixie with systemd and Podman 5 in a virtual machine, by software emulation: half an hour and more;
#             FLEET_VM_CGROUP=v1 for its cases on cgroup v1
# make conformance   the suites of crun and runc over this runtime and over both of them; SUITES="crun runc podman" for Podman's, too,
#             RELEASE=trixie or RELEASE=sid for those of a newer Debian, over its own crun and runc,
#             and RUNTIME_TOOLS=DIR SUITES=tools for the validation programs of runtime-tools
# make deny   licences, origins and duplicates of what is linked, and known vulnerabilities where their list can be reached
# make bench  create, start, delete, exec and state beside crun and runc, and more: writes docs/benchmarks.md
# make deb, make rpm, make image    packages, and the image that installs on nodes of a cluster, in target/dist
# make packages-test    the packages on Debian 12 and 13 and with rpm, lintian and rpmlint; make test does a part of it
SHELL := /bin/bash
TOP := $(CURDIR)
TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(TOP)/target)
ARCH := $(shell uname -m)
TRIPLE := $(ARCH)-unknown-linux-gnu
PROFILE ?= release
# The directory cargo names after a profile.
OUT = $(TARGET_DIR)/$(TRIPLE)/$(PROFILE)
TOOLS = $(TARGET_DIR)/$(PROFILE)

.PHONY: all setup build tools images demo test unit suites peers conformance vm bench lint clean deb rpm image packages-check packages-test package-files

all: build

setup:
	@tests/setup/packages.sh

# What is used in each call lies side by side in the release, whose names of functions tell their types for that.
ORDERED = $(if $(filter release,$(PROFILE)), -C symbol-mangling-version=v0 -C linker=$(TOP)/packaging/linker/cc)

# Static: the runtime is started several times per container, and next to images whose libraries it must not load. It
# unwinds nothing, so that tables for that are but weight.
build: setup
	RUSTFLAGS="-C target-feature=+crt-static -C force-unwind-tables=no$(ORDERED)$(REMAP)" LIBSECCOMP_LINK_TYPE=static LIBSECCOMP_LIB_PATH=/usr/lib/$(ARCH)-linux-gnu \
		cargo build --locked --profile $(PROFILE) --target $(TRIPLE) -p fleet-nvidia
	RUSTFLAGS="$(REMAP)" cargo build --locked --profile $(PROFILE) -p fleet-nvidia-ctl

tools: setup
	cargo build --locked --profile $(PROFILE) -p fleet-sim -p fleet-sim-nvml

images: setup
	@tests/setup/images.sh $(TOP)/.state/images
	@tests/setup/unpack.sh $(TOP)/.state/servers "usr/bin/redis-server usr/sbin/nats-server" redis-tools redis-server nats-server libjemalloc2 liblzf1 libatomic1
# From Debian 13 on the client is a package of its own.
	@tests/setup/criu.sh $(TOP)/.state/criu
	@tests/setup/unpack.sh $(TOP)/.state/docker usr/sbin/dockerd docker.io 'docker-cli?'

demo: build tools images
	@tests/isolate $(if $(wildcard /proc/driver/nvidia/version),--host-cdi) tests/demo.sh $(OUT)/fleet-nvidia $(TOOLS)

# A toolchain without these two components can test all the same.
lint: setup
	@mkdir -p .state && rm -f .state/skipped
	@if cargo fmt --version >/dev/null 2>&1; then set -x; cargo fmt --all --check; \
		else echo "SKIP lint: cargo fmt is not installed" | tee -a .state/skipped; fi
	@if cargo clippy --version >/dev/null 2>&1; then set -x; cargo clippy --locked --workspace --all-targets -- -D warnings; \
		else echo "SKIP lint: cargo clippy is not installed" | tee -a .state/skipped; fi

unit: setup
	cargo test --locked --workspace --exclude fleet-tests

suites: PROFILE = fast
suites:
	$(MAKE) PROFILE=fast build tools images
	cargo test --locked -p fleet-tests --no-run
	RUNTIME_UNDER_TEST=$(TARGET_DIR)/$(TRIPLE)/fast/fleet-nvidia FLEET_PROGRAMS=$(TARGET_DIR)/fast FLEET_CTL=$(TARGET_DIR)/fast/fleet-nvidia-ctl \
		FLEET_STATE=$(TOP)/.state FLEET_SKIPPED=$(TOP)/.state/skipped \
		tests/isolate cargo test --locked --offline -p fleet-tests -- --test-threads=1
	# Most nodes have cgroup v2 alone; here it may lack controllers, and what needs them is skipped by name.
	RUNTIME_UNDER_TEST=$(TARGET_DIR)/$(TRIPLE)/fast/fleet-nvidia FLEET_PROGRAMS=$(TARGET_DIR)/fast FLEET_STATE=$(TOP)/.state FLEET_SKIPPED=$(TOP)/.state/skipped \
		tests/isolate --cgroup v2 cargo test --locked --offline -p fleet-tests --test lifecycle --test contract --test parity --test notify --test spec_rows --test annotations --test checkpoint -- --test-threads=1
	# crun refuses hybrid cgroups, so what runs through it is tested in the v1 view.
	for peer in crun runc; do \
		RUNTIME_UNDER_TEST=$(TARGET_DIR)/$(TRIPLE)/fast/fleet-nvidia FLEET_DELEGATE=$$peer FLEET_STATE=$(TOP)/.state FLEET_SKIPPED=$(TOP)/.state/skipped-$$peer \
			tests/isolate --cgroup v1 cargo test --locked --offline -p fleet-tests --test lifecycle --test contract --test notify -- --test-threads=1 || exit 1; \
	done
	RUNTIME_UNDER_TEST=$(TARGET_DIR)/$(TRIPLE)/fast/fleet-nvidia FLEET_PROGRAMS=$(TARGET_DIR)/fast FLEET_STATE=$(TOP)/.state FLEET_SKIPPED=$(TOP)/.state/skipped \
		tests/isolate --cgroup v1 cargo test --locked --offline -p fleet-tests --test delegate -- --test-threads=1

# Packages that are given away do not tell where they were built.
deb rpm image: REMAP = $(empty) --remap-path-prefix=$(TOP)=/usr/src/fleet-nvidia --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/usr/src/cargo
deb rpm image: build package-files
	@$(if $(filter image,$@),tests/setup/packages.sh buildah)$(if $(filter rpm,$@),tests/setup/packages.sh rpm)
	PROGRAMS=$(TARGET_DIR)/package/bin GEN=$(TARGET_DIR)/package/gen packaging/$@/build $(TARGET_DIR)/dist

# Man pages and completions come from the programs' own definitions, in a build that does nothing else.
package-files: build
	cargo build --locked -p fleet-nvidia -p fleet-nvidia-ctl --features fleet-nvidia/docgen,fleet-nvidia-ctl/docgen
	packaging/generate $(TARGET_DIR)/package/gen $(TARGET_DIR)/debug
	install -D -t $(TARGET_DIR)/package/bin $(OUT)/fleet-nvidia $(TOOLS)/fleet-nvidia-ctl

packages-check packages-test: PROFILE = fast
packages-check packages-test:
	$(MAKE) PROFILE=fast tools images package-files
	PROGRAMS=$(TARGET_DIR)/package/bin STATE=$(TOP)/.state SIMULATE=$(TARGET_DIR)/fast \
		tests/packages.sh $(if $(filter packages-test,$@),all) $(TARGET_DIR)/package/gen

test: lint unit suites packages-check
	@if [ -s .state/skipped ]; then echo "$$(sort -u .state/skipped | wc -l) skipped on this machine:"; sort -u .state/skipped; else echo "nothing was skipped"; fi

# The suites that need nothing of ours, over the machine's crun and runc: what fails here says that a test is wrong.
peers: images
	cargo test --locked -p fleet-tests --no-run
	for peer in crun runc; do \
		RUNTIME_UNDER_TEST=$$(command -v $$peer) FLEET_STATE=$(TOP)/.state FLEET_SKIPPED=$(TOP)/.state/skipped-$$peer \
			tests/isolate --cgroup v1 cargo test --locked --offline -p fleet-tests --test lifecycle --test contract --test parity --test notify --test annotations --test spec_rows -- --test-threads=1 || exit 1; \
	done

# What `make test` takes a sample of: the runtime killed, and refused every system call, at each step; 10 000 containers.
.PHONY: faults fuzz
faults: PROFILE = fast
faults:
	$(MAKE) PROFILE=fast build images
	cargo test --locked -p fleet-tests --no-run
	RUNTIME_UNDER_TEST=$(OUT)/fleet-nvidia FLEET_STATE=$(TOP)/.state FLEET_SKIPPED=$(TOP)/.state/skipped-faults FLEET_FAULTS=all \
		tests/isolate cargo test --locked --offline -p fleet-tests --test faults -- --test-threads=1 --nocapture

# Fuzz targets for what comes from images, specs and the bus; FUZZ_TARGETS names some of them.
FUZZ_SECONDS ?= 30
fuzz: setup
	tests/fuzz/run $(FUZZ_SECONDS) $(FUZZ_TARGETS)

# What is allowed stands in deny.toml. The list of vulnerabilities is fetched each time; a machine that cannot says so.
.PHONY: deny
deny:
	@cargo deny --version >/dev/null 2>&1 || { echo "cargo-deny is missing; hint: cargo install --locked cargo-deny" >&2; exit 1; }
	cargo deny --locked check bans licenses sources
	@if cargo deny fetch db >/dev/null 2>&1; then set -x; cargo deny --locked check advisories; \
		else echo "SKIP deny: the list of vulnerabilities cannot be fetched"; fi

vm: PROFILE = fast
vm:
	@tests/setup/packages.sh qemu-system-x86 mmdebstrap openssh-client e2fsprogs
	$(MAKE) PROFILE=fast tools images package-files
	tests/vm/image.sh $(TOP)/.state/vm
	deb=$$(PROGRAMS=$(TARGET_DIR)/package/bin GEN=$(TARGET_DIR)/package/gen packaging/deb/build $(TOP)/.state/vm/package) && \
		tests/vm/run $(TOP)/.state/vm $$deb $(TARGET_DIR)/fast

# SUITES, RUNTIMES and VIEWS narrow it down. Sources are fetched from Debian on the first run. RELEASE names another release of Debian,
# whose crun and runc are unpacked beside those of the machine.
SUITES ?= crun runc
PEERS = $(if $(RELEASE),$(TOP)/.state/conformance/$(RELEASE)/bin/crun $(TOP)/.state/conformance/$(RELEASE)/bin/runc,$(shell command -v crun) $(shell command -v runc))
RUNTIMES ?= $(OUT)/fleet-nvidia $(PEERS)
VIEWS ?= v1 v2
conformance: PROFILE = fast
conformance:
	$(MAKE) PROFILE=fast build images
	@tests/conformance/prepare.sh .state/conformance
	@$(if $(RELEASE),tests/conformance/release.sh .state/conformance $(RELEASE))
	@RELEASE=$(RELEASE) tests/conformance/run.sh .state/conformance "$(SUITES)" "$(RUNTIMES)" "$(VIEWS)"
	@tests/conformance/report.sh .state/conformance

bench: build tools images
	RUNTIME_UNDER_TEST=$(OUT)/fleet-nvidia tests/bench.sh $(TOOLS) $(PROFILE)

# Which functions each call uses, by which the release is linked: after changes in what a call does, not after each.
.PHONY: hot
hot: images
	CARGO_PROFILE_RELEASE_STRIP=none $(MAKE) build
	cargo bench --locked --profile fast -p fleet-tests --bench hot --no-run
	RUNTIME_UNDER_TEST=$(OUT)/fleet-nvidia FLEET_HOT=$(TOP)/crates/fleet-nvidia/hot-functions \
		tests/isolate --cgroup v1 cargo bench --locked --offline --profile fast -p fleet-tests --bench hot

clean:
	cargo clean
	rm -rf .state
