# Everything that a person does here; `make` alone tells it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VERSION ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n1)
# Flags for `make run` (`make run ARGS="--set server.port=9000"`), or which tests `make test` runs.
ARGS ?=

# Rust that scripts/setup has installed is not on a fresh login's path yet.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

# What one runs while working: quick to build, and shared by run, test and check.
QUICK := --profile quick --locked

##@ Everyday
.PHONY: run test check bench help version clean

run: ## Build and start everything on this machine (ARGS="…" goes to `streamspace up`)
	@scripts/setup run
	@cargo build $(QUICK) -p streamspace
	@exec target/quick/streamspace up $(ARGS)

test: ## All tests, on real servers that they start themselves (or some: ARGS="-p CRATE NAME")
	@scripts/setup test
	cargo test $(QUICK) $(or $(ARGS),--workspace)

check: ## What CI runs first: format, lints, docs, dependencies, generated files
	@scripts/setup check
	@scripts/check

bench: ## Measure the job engine; prints one table
	@scripts/setup test
	cargo run --profile bench --locked -p streamspace-bench -- $(ARGS)

help: ## This text
	@[ -t 1 ] && plain=cat || plain='sed s/\x1b\[[0-9]*m//g'; awk 'BEGIN { FS = ":.*## "; printf "\nStreamSpace \033[1m$(VERSION)\033[0m   usage: make \033[36m<target>\033[0m\n" } \
		/^##@/ { printf "\n\033[1m%s\033[0m\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  \033[36m%-12s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST) | $$plain

version: ## The version, and that of each tool it is built with
	@echo "streamspace $(VERSION)"
	@for tool in "cargo --version" "rustc --version" "cc --version"; do \
		$$tool 2>/dev/null | head -n1 || echo "$${tool%% *}: missing (make dev-setup installs it)"; done
	@ls -d /usr/lib/postgresql/*/bin/postgres 2>/dev/null || command -v postgres || \
		echo "postgres: missing (make dev-setup installs it)"

clean: ## Remove what was built
	cargo clean

##@ Development
.PHONY: dev-setup fmt lint generate

dev-setup: ## Install what building, testing and checking need
	@scripts/setup test
	@scripts/setup check
	@echo "everything needed is here"

fmt: ## Format all sources
	cargo fmt --all

lint: ## Clippy alone
	cargo clippy $(QUICK) --workspace --all-targets -- -D warnings

generate: ## Write the generated files anew: .sqlx, api/openapi.json, docs/configuration.md, docs/permissions.md
	@scripts/setup check
	scripts/sqlx-prepare
	scripts/generate

##@ Build and release
.PHONY: build release test-long

build: ## Build the program, quickly
	@scripts/setup run
	cargo build $(QUICK) -p streamspace

release: ## Build the program to ship: target/release/streamspace
	@scripts/setup run
	cargo build --release --locked -p streamspace
	@ls -lh target/release/streamspace

test-long: ## All tests with their full matrices; takes hours
	@scripts/setup test
	STREAMSPACE_TEST_LONG=1 cargo test $(QUICK) $(or $(ARGS),--workspace)
	STREAMSPACE_TEST_POOLER=1 cargo test $(QUICK) -p streamspace-tests
