# Every target works alone on a fresh machine: what is missing is installed first, once.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:
.SILENT:

PYTHON ?= python3
EXTRAS ?= scine,embedded,dev
PYTEST ?=
PARALLEL ?= 6

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OVERRIDES := fleet/data/overrides.txt
OWN_UV := .cache/uv
COLLECTIONS := .cache/ansible

export PATH := $(PATH):/usr/sbin:/sbin
# An advertisement for its successor, at every build.
export NO_MKDOCS_2_WARNING := 1

# The tests start hundreds of short processes: each would compile all it imports anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test soak lint docs clean install system

help:  ## list the targets
	sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)

demo: $(STAMP)  ## deploy two workers on this machine and let them compute 20 molecules
	$(BIN)/puffin-fleet demo

test: lint system  ## lint, then unit, integration and acceptance tests (PYTEST='-k name' to choose)
	$(BIN)/python -m pytest -n $(PARALLEL) --dist loadfile --no-loadscope-reorder $(PYTEST)

soak: lint system  ## all tests, also those that take long
	$(BIN)/python -m pytest -n $(PARALLEL) --dist loadfile --no-loadscope-reorder --soak $(PYTEST)

lint: $(STAMP)  ## ruff, mypy, yamllint and ansible-lint, and whether the documentation can be built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mkdocs build --strict --site-dir .cache/site
	$(BIN)/yamllint --strict --config-file ansible/.yamllint ansible
	export LC_ALL=C.UTF-8  # Ansible refuses to work in any other encoding
	$(BIN)/ansible-galaxy collection install ./ansible -p $(COLLECTIONS) --force >/dev/null 2>&1
	cd ansible
	PATH="$(CURDIR)/$(BIN):$$PATH" ANSIBLE_COLLECTIONS_PATH="$(CURDIR)/$(COLLECTIONS)" ansible-lint

docs: $(STAMP)  ## build the documentation into site/
	$(BIN)/mkdocs build --strict

install: $(STAMP)  ## only make the environment in .venv

clean:  ## remove everything that the other targets made
	rm -rf $(VENV) .cache build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis secantus-data
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv reads no settings of pip: where only pip knows the mirror, tell uv. Which uv: the user's own if it runs,
# else one in a place of its own, made by pip or, where Debian split pip off, by a virtual environment.
$(STAMP): pyproject.toml $(OVERRIDES)
	uv=uv
	if ! uv --version >/dev/null 2>&1; then
	  uv=$(OWN_UV)/bin/uv
	  $(call install_uv)
	fi
	if [ -z "$${UV_DEFAULT_INDEX:-}$${UV_INDEX_URL:-}$${UV_CONFIG_FILE:-}" ] \
	    && [ ! -e /etc/uv/uv.toml ] && [ ! -e "$${XDG_CONFIG_HOME:-$${HOME:-/}/.config}/uv/uv.toml" ]; then
	  index="$${PIP_INDEX_URL:-$$($(PYTHON) -m pip config get global.index-url 2>/dev/null || true)}"
	  if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi
	fi
	if [ ! -x $(BIN)/python ]; then
	  "$$uv" venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV)
	fi
	echo "installing into $(VENV)"
	"$$uv" pip install --quiet --python $(BIN)/python --overrides $(OVERRIDES) --editable '.[$(EXTRAS)]'
	touch $@

define install_uv
if [ ! -x $(OWN_UV)/bin/uv ]; then
  echo "installing uv into $(OWN_UV)"
  if $(PYTHON) -m pip --version >/dev/null 2>&1; then
    $(PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target $(OWN_UV) uv
  elif $(PYTHON) -m venv $(OWN_UV) >/dev/null 2>&1; then
    $(OWN_UV)/bin/python -m pip install --quiet --disable-pip-version-check uv
  elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    rm -rf $(OWN_UV)
    $(call apt_install,python3-pip)
    /usr/bin/python3 -m pip install --quiet --root-user-action=ignore --target $(OWN_UV) uv
  else
    rm -rf $(OWN_UV)
    echo "uv and pip are missing. Run: sudo apt-get install --no-install-recommends python3-pip" >&2
    exit 1
  fi
fi
endef

apt_install = DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null \
	&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1) >/dev/null

# The laboratory's hosts are real sshd processes with addresses of their own, started by cron after a reboot; only root
# can make bare ones. Programs are built from small repositories with a real compiler.
system:
	missing=""
	command -v sshd >/dev/null || missing="$$missing openssh-server"
	command -v ip >/dev/null || missing="$$missing iproute2"
	command -v crontab >/dev/null || missing="$$missing cron"
	for tool in git cmake make; do command -v $$tool >/dev/null || missing="$$missing $$tool"; done
	command -v c++ >/dev/null || missing="$$missing g++"
	if [ "$$(id -u)" = 0 ]; then command -v debootstrap >/dev/null || missing="$$missing debootstrap"; fi
	if [ -z "$$missing" ]; then exit 0; fi
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	  echo "installing$$missing"
	  $(call apt_install,$$missing)
	else
	  echo "Tests that need$$missing will be skipped. To run them too:"
	  echo "  sudo apt-get update && sudo apt-get install --no-install-recommends$$missing"
	fi
