# What there is to do here. Every target says what it does, asks nothing, and may be interrupted and repeated.
#   make setup   install what is missing on a bare Debian 12 or later (root or password-less sudo)
#   make build   everything, release
#   make check   formatting, lints and the tests that need nothing but Rust (tier A)
#   make test    everything, real kernels in QEMU included; sets the machine up first
#   make demo    the scheduler at work, in a guest of two CPUs

CARGO ?= cargo
XTASK := $(CARGO) xtask

.PHONY: help setup setup-check build lint check test demo
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

check: lint
	$(CARGO) test --quiet -p qumun --no-default-features --features sim
	$(CARGO) test --quiet -p gthulhu-plugin-gthulhu -p gthulhu-plugin-simple -p gthulhu-plugin-simple-fifo -p xtask

test: setup check
	$(CARGO) test --quiet --workspace
	$(XTASK) outside
	$(XTASK) lab test

demo: setup
	@$(XTASK) demo

.PHONY: have-cargo
have-cargo:
	@command -v $(CARGO) >/dev/null || { \
	    echo "cargo is missing. Rust comes from https://rustup.rs:"; \
	    echo "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"; \
	    exit 1; } >&2
