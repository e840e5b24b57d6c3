# `make help` lists the targets. Each installs what this machine lacks, and says so.
SHELL := /bin/bash
export PATH := $(PATH):$(HOME)/.cargo/bin

# Evaluated when used: Rust may only be there after the set-up.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
# musl where rustup has it, else glibc; both are linked statically.
TARGET = $(shell musl=$(HOST:-gnu=-musl); test -d "$$(rustc --print sysroot)/lib/rustlib/$$musl" && echo $$musl || echo $(HOST))
BINARY = $(CURDIR)/target/$(TARGET)/release/nixkit

# The integration tests mount file systems: they run as root in a mount namespace of their own, so that
# nothing stays mounted however they end. cargo itself runs as the user.
AS_ROOT = $(shell test $$(id -u) = 0 || echo sudo -E env PATH=$(PATH))
RUNNER = CARGO_TARGET_$(shell echo $(HOST) | tr a-z- A-Z_)_RUNNER

.PHONY: help build demo check test clean binary lints unit-tests integration-tests
.NOTPARALLEL:

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

build: ## Build the static binary, target/<triple>/release/nixkit
	@.ci/set-up build
	@$(MAKE) --no-print-directory binary

demo: ## Build it, install a profile with real Nix, export it, and run a program from the exported root
	@.ci/set-up run
	@$(MAKE) --no-print-directory binary
	@$(AS_ROOT) .ci/demo $(BINARY)

check: ## Format, lints and unit tests: what to run while you work
	@.ci/set-up build
	@$(MAKE) --no-print-directory lints unit-tests

test: ## Everything that CI runs
	@.ci/set-up test
	@$(MAKE) --no-print-directory binary lints unit-tests integration-tests
	@echo "All tests passed; they ran $(BINARY)"

clean: ## Remove everything that was built here
	@$(AS_ROOT) rm -rf target/demo
	cargo clean

# Without --target the flag would hold for proc-macros too, which cannot be static.
binary:
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target $(TARGET)
	@echo "built $(BINARY) ($$(stat -c %s $(BINARY)) bytes)"

lints:
	cargo fmt --check
	cargo clippy --locked --all-targets -- --deny warnings

unit-tests:
	cargo test --locked --lib

integration-tests:
	$(RUNNER)='$(AS_ROOT) unshare --mount --propagation private' NIXKIT=$(BINARY) cargo test --locked --test it
