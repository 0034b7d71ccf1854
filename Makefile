# MLflow on AWS. `make help` lists the commands; every one installs what it needs.
SHELL := /bin/sh
PYTHON ?= python3
ENV ?= dev
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Deploying is the only thing here that may see an AWS profile: everything else runs without credentials.
OFFLINE := env -u AWS_PROFILE -u AWS_DEFAULT_PROFILE -u AWS_ACCESS_KEY_ID -u AWS_SECRET_ACCESS_KEY \
	-u AWS_SESSION_TOKEN -u AWS_ENDPOINT_URL -u AWS_CA_BUNDLE \
	AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_EC2_METADATA_DISABLED=true

.DEFAULT_GOAL := help

.PHONY: help
help:  ## List these commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: .venv/.installed  ## Install everything into .venv, .local and node_modules (pinned, hash-checked)

.venv/.installed: install.sh requirements-dev.txt server/requirements.txt local/emulator/requirements.txt server/pyproject.toml package-lock.json
	@PYTHON="$(PYTHON)" sh install.sh
	@touch $@
