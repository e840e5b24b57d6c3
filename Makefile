# `make help` lists the targets. Each installs what it lacks and says so.
SHELL := /bin/bash
export PATH := $(PATH):$(HOME)/.cargo/bin
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
# musl where it is installed: then nothing of glibc is in the binary. Else glibc, linked statically.
TARGET ?= $(shell sysroot=$$(rustc --print sysroot); musl=$(subst -gnu,-musl,$(HOST)); \
	test -d $$sysroot/lib/rustlib/$$musl && echo $$musl || echo $(HOST))
BINARY = $(CURDIR)/target/$(TARGET)/release/nixkit

.PHONY: help build demo check test clean
help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

build: ## Build the static binary, target/<triple>/release/nixkit
	@.ci/set-up build
	@$(MAKE) --no-print-directory binary
.PHONY: binary
binary:
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target $(TARGET)
	@echo "built $(BINARY) ($$(stat -c %s $(BINARY)) bytes)"
