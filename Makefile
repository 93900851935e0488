# What there is to do here. Every target says what it does, asks nothing, and may be interrupted and repeated.
#   make setup   install what is missing on a bare Debian 12 or later (root or password-less sudo)
#   make build   everything, release
#   make lint    formatting, clippy, licences of all dependencies
#   make check   lint, the oldest Rust if installed, and the tests that need nothing but Rust (tier A)
#   make loom    the lock-free code in every order of its threads (in check, too)
#   make miri    the rings and the pool under Miri (needs rustup's nightly with miri)
#   make test    everything, real kernels in QEMU included; sets the machine up first
#   make matrix  load, stress and drills on every kernel series of the design; the first time it builds 6.12
#   make soak HOURS=n   n hours of load in one guest
#   make package the crates as published, built without clang and run in a guest
#   make cross   the library, libbpf and the core for aarch64, compiled
#   make bench   how fast: criterion, dispatch latency through real rings (root), then EEVDF, scx_bpfland and scx_rustland
#                against ours in guests; into benches/runs/. Two hours; only the last: cargo xtask lab compare [--quick]
#   make profile  where the instructions of a wakeup go, by function, under several schedulers; into benches/runs/
#   make demo    the scheduler at work, in a guest of two CPUs

CARGO ?= cargo
XTASK := $(CARGO) xtask

.PHONY: help setup setup-check build lint bare check docs loom miri test matrix soak package cross bench profile demo
.NOTPARALLEL:

help:
	@sed -n 's/^#   //p' Makefile

setup: have-cargo
	@$(XTASK) setup

# Only says what is missing: building should not install packages by itself.
setup-check: have-cargo
	@$(XTASK) setup --check

build: setup-check
	$(CARGO) build --release --workspace --bins --examples

lint: setup-check
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	@$(XTASK) deny

check: bare
	$(CARGO) test --quiet -p gthulhu-model --all-features
	$(CARGO) test --quiet -p gthulhu-config
	$(CARGO) test --quiet -p gthulhu-discovery --lib
	$(CARGO) test --quiet -p gthulhu-plugin-gthulhu -p gthulhu-plugin-simple -p gthulhu-plugin-simple-fifo -p qumun-cli -p xtask

# What the workspace as a whole does not show: the crates with nothing but Rust, alone.
bare: lint docs loom
	@$(XTASK) msrv
	$(XTASK) api
	$(CARGO) test --quiet -p qumun --no-default-features --features testkit
	$(CARGO) test --quiet -p qumun-bpf --no-default-features

# Every public item has a page without a warning; that it has one at all is a lint (missing_docs).
docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet --no-deps -p qumun -p qumun-bpf -p qumun-cli -p gthulhu-model -p gthulhu-config -p gthulhu-discovery -p gthulhu-monitor -p gthulhu-top -p gthulhu-api \
	    --features qumun/testkit,gthulhu-model/serde

# In a folder of its own: the flag would have everything else built again.
loom:
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom $(CARGO) test --quiet --release \
	    -p qumun -p qumun-bpf -p gthulhu-model --no-default-features --features qumun/sim --test loom

miri:
	CARGO_TARGET_DIR=target/miri $(CARGO) +nightly miri test --quiet -p qumun-bpf --no-default-features ring

test: setup bare
	$(CARGO) test --quiet --workspace
	$(CARGO) test --quiet -p gthulhu-discovery --features kubernetes --test kubernetes
	$(CARGO) test --quiet --release -p qumun-lockstep
	$(CARGO) test --quiet -p qumun --no-default-features --features sim,hwloc topology
	$(XTASK) outside
	$(XTASK) lab test

matrix: setup
	@$(XTASK) lab matrix

soak: have-hours setup
	@$(XTASK) lab soak --hours "$(HOURS)"

package: setup
	@$(XTASK) package --guest

cross: setup
	@$(XTASK) cross

# Not in parallel, and built before the first one runs: they measure time. cargo starts them in benches/.
BENCHES := wire rings queues select policies pool sim
bench: setup
	$(CARGO) bench --no-run -p qumun-benches
	@n=0; for bench in $(BENCHES); do \
	    n=$$((n + 1)); echo "bench: $$bench ($$n of $(words $(BENCHES) dispatch))"; \
	    $(CARGO) bench --quiet -p qumun-benches --bench $$bench || exit 1; \
	done
	@echo "bench: dispatch ($(words $(BENCHES) dispatch) of $(words $(BENCHES) dispatch))"
	@$(CARGO) bench --quiet -p qumun-benches --bench dispatch -- --write runs/$$(date +%F)-native
	@$(CARGO) bench --quiet -p qumun-benches --bench summary -- --write runs/$$(date +%F)-native
	@echo "bench: the lab comparison, about an hour; it says [n/N] for each measurement"
	@$(XTASK) lab compare

profile: setup
	@$(XTASK) lab profile

demo: setup
	@$(XTASK) demo

.PHONY: have-hours
have-hours:
	@test -n "$(HOURS)" || { echo "how long? make soak HOURS=8" >&2; exit 2; }

.PHONY: have-cargo
have-cargo:
	@command -v $(CARGO) >/dev/null || { \
	    echo "cargo is missing. Rust comes from https://rustup.rs:"; \
	    echo "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"; \
	    exit 1; } >&2
