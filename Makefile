# What there is to do here. Every target says what it does, asks nothing, and may be interrupted and repeated.
#   make setup   install what is missing on a bare Debian 12 or later (root or password-less sudo)
#   make build   everything, release
#   make check   formatting, lints and the tests that need nothing but Rust (tier A)
#   make loom    the lock-free code in every order of its threads (in check, too)
#   make miri    the rings under Miri (needs rustup's nightly with miri)
#   make test    everything, real kernels in QEMU included; sets the machine up first
#   make demo    the scheduler at work, in a guest of two CPUs

CARGO ?= cargo
XTASK := $(CARGO) xtask

.PHONY: help setup setup-check build lint check docs loom miri test demo
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

check: lint docs loom
	$(XTASK) api
	$(CARGO) test --quiet -p qumun --no-default-features --features sim
	$(CARGO) test --quiet -p qumun-bpf --no-default-features
	$(CARGO) test --quiet -p gthulhu-plugin-gthulhu -p gthulhu-plugin-simple-fifo -p xtask

# Every public item has a page without a warning; that it has one at all is a lint (missing_docs).
docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet --no-deps -p qumun -p qumun-bpf --features qumun/sim

# In a folder of its own: the flag would have everything else built again.
loom:
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom $(CARGO) test --quiet --release \
	    -p qumun -p qumun-bpf --no-default-features --features qumun/sim --test loom

miri:
	CARGO_TARGET_DIR=target/miri $(CARGO) +nightly miri test --quiet -p qumun-bpf --no-default-features ring

test: setup check
	$(CARGO) test --quiet --workspace
	$(CARGO) test --quiet -p qumun --no-default-features --features sim,hwloc topology
	$(XTASK) lab test

demo: setup
	@$(XTASK) demo

.PHONY: have-cargo
have-cargo:
	@command -v $(CARGO) >/dev/null || { \
	    echo "cargo is missing. Rust comes from https://rustup.rs:"; \
	    echo "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"; \
	    exit 1; } >&2
