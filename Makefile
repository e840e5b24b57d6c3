# `make help` lists the targets. Each installs what this machine lacks, and says so.
SHELL := /bin/bash
export PATH := $(HOME)/.cargo/bin:$(PATH)

# make expands a recipe before it runs its first line, when Rust may not be there yet: so the targets for
# people do the set-up and call make again for the rest.
AGAIN = @+$(MAKE) --no-print-directory
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
# musl where rustup has it, else glibc; both are linked statically.
TARGET = $(shell musl=$(HOST:-gnu=-musl); test -d "$$(rustc --print sysroot)/lib/rustlib/$$musl" && echo $$musl || echo $(HOST))
BINARY = $(CURDIR)/target/$(TARGET)/release/nixkit
RUNNER = CARGO_TARGET_$(shell echo $(HOST) | tr a-z- A-Z_)_RUNNER

.PHONY: help build demo check check-msrv test stress bench bench-sync docs clean binary run-demo run-docs run-bench run-bench-sync lints unit-tests integration-tests stress-tests tests-passed
.NOTPARALLEL:

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

build: ## Build the static binary, target/<triple>/release/nixkit
	@.ci/set-up build
	$(AGAIN) binary

demo: ## Build it, export a profile of real Nix, make a base image, build Dockerfile.example from it and run it
	@.ci/set-up run
	$(AGAIN) binary run-demo

check: ## Format, lints and unit tests: what to run while you work
	@.ci/set-up check
	$(AGAIN) lints unit-tests

check-msrv: ## Compile with exactly the oldest Rust that Cargo.toml allows (rust-version)
	@.ci/check-msrv

test: ## Everything that CI runs
	@.ci/set-up test
	$(AGAIN) binary lints unit-tests integration-tests tests-passed

stress: ## Exports of 8 GiB files and of a million entries, many at once, and killed: some minutes, 4 GiB of disk
	@.ci/set-up stress
	$(AGAIN) binary stress-tests

bench: ## Time the export against every other way, on ext4, xfs, btrfs and overlayfs; options in BENCH=
	@.ci/set-up bench
	$(AGAIN) binary run-bench

bench-sync: ## Time sync-dockerfile on a Dockerfile of 1 MB and a flake.lock of 5 MB, against its limits
	@.ci/set-up build
	$(AGAIN) binary run-bench-sync

docs: ## Generate the lists of options in docs/cli and the pictures in docs/pictures
	@.ci/set-up docs
	$(AGAIN) run-docs

clean: ## Remove everything that was built here
	@.ci/as-root rm -rf target/demo target/bench target/toolkit
	cargo clean

# Without --target the flags would hold for proc-macros too, which cannot be static. At a fixed address: a table of
# relocations would be 130 kB.
binary:
	RUSTFLAGS='-C target-feature=+crt-static -C relocation-model=static' cargo build --release --locked --target $(TARGET)
	@echo "built $(BINARY) ($$(stat -c %s $(BINARY)) bytes)"

run-docs:
	cargo build --locked --bin nixkit
	docs/cli/make target/debug/nixkit docs/cli
	docs/pictures/make docs/pictures

run-demo:
	@.ci/as-root .ci/demo $(BINARY)

# Like the tests it runs as root in a mount namespace of its own. cargo and what it builds stay the user's.
run-bench:
	cargo build --release --locked --examples
	@PATH=$(CURDIR)/target/bench/tools/bin:$$PATH:/usr/sbin:/sbin NIXKIT=$(BINARY) NIXKIT_LIMIT=$(CURDIR)/target/release/examples/limit \
		NIX_USER_CONF_FILES=$(CURDIR)/tests/nixpkgs/nix.conf \
		.ci/as-root unshare --mount --propagation private target/release/examples/bench $(BENCH)
	@$(if $(findstring --images,$(BENCH))$(findstring --report,$(BENCH)),,$(MAKE) --no-print-directory run-bench BENCH="$(if $(findstring --quick,$(BENCH)),--quick) --images")

run-bench-sync:
	cargo build --release --locked --example bench-sync
	target/release/examples/bench-sync $(BINARY)

lints:
	@.ci/lints

unit-tests:
	cargo test --locked --lib --example bench

# They mount file systems, so they run as root, in a mount namespace of their own: nothing stays mounted,
# however they end. cargo itself runs as the user.
integration-tests:
	cargo build --locked --manifest-path tests/Cargo.toml --target-dir target
	$(RUNNER)='$(CURDIR)/.ci/as-root unshare --mount --propagation private' NIXKIT=$(BINARY) \
		cargo test --locked --test it

# One after the other: each is measured, and the disk and memory that they need are those of one.
stress-tests:
	$(RUNNER)='$(CURDIR)/.ci/as-root unshare --mount --propagation private' NIXKIT=$(BINARY) \
		cargo test --locked --test stress -- --ignored --test-threads 1

tests-passed:
	@echo "All tests passed. They ran $(BINARY)"
