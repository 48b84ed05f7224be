# pgward: PostgreSQL high availability in one binary.
#
# Every target installs what it needs (Debian packages) and can be repeated. Parameters:
#   PG_BIN=/usr/lib/postgresql/17/bin    which PostgreSQL `demo`, `test`, `bench` and `soak` use (default: the newest)
#   ARGS="..."                           more arguments: for `pgward demo`, `cargo test`, the benchmark
SHELL := /bin/bash
.DEFAULT_GOAL := help

ifneq ($(strip $(PG_BIN)),)
export PG_BIN
endif

.PHONY: help build demo demo-stop test check fuzz bench sim soak

help: ## this list
	@echo "make TARGET [PG_BIN=DIR] [ARGS=\"...\"]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r target text; do printf '  %-10s %s\n' "$$target" "$$text"; done

build: ## the executable, optimised: target/release/pgward
	@scripts/setup build
	cargo build --release --locked -p pgward-cli --bin pgward

demo: ## a three-node cluster on this machine, until Ctrl-C (ARGS="--detach" returns at once)
	@scripts/demo $(ARGS)

demo-stop: ## stop a demo that was started with --detach
	@scripts/demo stop $(ARGS)

test: ## all tests: unit, store conformance, end-to-end with real PostgreSQL and etcd
	@scripts/test $(ARGS)

check: ## format, lints, documentation, dependencies: what CI runs before the tests
	@scripts/check

fuzz: ## try to break every parser and the decision core, FUZZ_SECONDS=60 for each target (ARGS="yaml decision" for some)
	@scripts/fuzz $(ARGS)

bench: ## measure pgward and Patroni side by side (about an hour; ARGS="--rows switchover --runs 3" for less)
	@scripts/bench $(ARGS)

sim: ## simulated clusters under faults: SEEDS=100000, MINUTES=10, or SEED=4711 for the story of one
	@scripts/sim $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

soak: ## the long tests, hours
	@scripts/soak $(ARGS)
