# Two commands do all the set-up on a fresh Debian machine: `make demo` and `make test`. Both want root: they install
# Debian packages, and make network namespaces and virtual machines.

# Where tests/setup installs Rust, if there is none.
export PATH := $(PATH):$(HOME)/.cargo/bin

TARGET    := x86_64-unknown-linux-musl
RELEASE   := $(or $(CARGO_TARGET_DIR),target)/$(TARGET)/release
export METALGATE_CACHE     ?= $(HOME)/.cache/metalgate
export METALGATE_ARTIFACTS ?= $(METALGATE_CACHE)/artifacts
export METALGATE_AGENT     ?= $(abspath $(RELEASE))/metalgate-agent

.PHONY: build artifacts demo test bench cluster-test fmt clippy clean

# Both static binaries.
build: | toolchain
	cargo build --release --locked --target $(TARGET)

.PHONY: toolchain
toolchain:
	@tests/setup build

# Everything that is served: kernel, initramfs, agent, iPXE, OS image, Kubernetes' programs and container images.
artifacts: build
	$(RELEASE)/metalgate artifacts fill --from build
	$(RELEASE)/metalgate artifacts verify

# The main job on the embedded virtual rack: a UEFI and a BIOS machine, from powered off to SSH.
demo: artifacts
	@tests/setup lab
	tests/demo $(RELEASE)/metalgate

# Every check there is; the last line counts them.
test:
	@tests/run

# A large inventory, beside a plain parse of the same file: the program that users run, in a second and 100 MB.
bench: | toolchain
	cargo bench --locked --target $(TARGET) --bench inventory

# One test of `make test` alone: from powered off to a cluster that manages itself, on virtual machines.
cluster-test: artifacts
	@tests/setup test
	METALGATE_BIN=$(abspath $(RELEASE))/metalgate cargo test --locked --test lab -- --nocapture \
		two_machines_become_a_cluster

fmt:
	cargo fmt --check

clippy:
	cargo clippy --locked --all-targets -- -D warnings

clean:
	cargo clean
