# MLflow on AWS. `make help` lists the commands; every one installs what it needs first.
SHELL := /bin/sh
PYTHON ?= python3
ENV ?= dev
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Where it is set, every process would compile again what it imports: 25 s at the start of each of pytest's.
unexport PYTHONDONTWRITEBYTECODE
# Only the commands below "AWS" and smoke may see an AWS profile; everything else runs without credentials.
OFFLINE := env -u AWS_PROFILE -u AWS_DEFAULT_PROFILE -u AWS_ACCESS_KEY_ID -u AWS_SECRET_ACCESS_KEY \
	-u AWS_SESSION_TOKEN -u AWS_ENDPOINT_URL -u AWS_CA_BUNDLE -u AWS_ROLE_ARN \
	-u AWS_WEB_IDENTITY_TOKEN_FILE -u AWS_CONTAINER_CREDENTIALS_FULL_URI \
	-u AWS_CONTAINER_CREDENTIALS_RELATIVE_URI \
	AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_EC2_METADATA_DISABLED=true
# Two processes; ARGS="-n 0" runs the tests in one, and shows what they print.
PYTEST := $(OFFLINE) python -m pytest -n 2 --dist loadscope --no-loadscope-reorder
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
CLIENTS := tests/clients/requirements

.DEFAULT_GOAL := help

# A slip such as DRYRUN=yes must not do without a word what nobody asked for.
$(foreach each,$(filter-out AWS_% MLFLOW_%,$(.VARIABLES)),$(if $(filter command,$(firstword $(origin $(each)))),\
	$(if $(shell grep -F -e '$$($(each))' -e '$(each) ?=' $(firstword $(MAKEFILE_LIST)) | head -1),,\
	$(error no command knows $(each)=: see make help and docs/operations.md))))

.PHONY: help
help:  ## List these commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{gsub(/[$$][$$]/, "$$", $$2); printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\n  make synth ENV=dev|prod   make smoke URL=https://...   make test ARGS="-k tls"\n'

.PHONY: install
install: .venv/.installed  ## Install everything (pinned, hash-checked) into .venv, .local/venvs and node_modules

.venv/.installed: install.sh requirements-dev.txt requirements-uv.txt server/requirements.txt \
		local/emulator/requirements.txt server/pyproject.toml client_auth/pyproject.toml \
		lifecycle/pyproject.toml package-lock.json
	@PYTHON="$(PYTHON)" sh install.sh
	@touch $@

.PHONY: demo
demo: install  ## Deploy to embedded parts, prove it with the smoke client, clean up (no AWS account)
	@$(OFFLINE) python -m local demo $(ARGS)

.PHONY: up
up: install  ## As demo, but keep it running for the browser and a notebook
	@$(OFFLINE) python -m local up $(ARGS)

.PHONY: down
down: install  ## Stop what `make up` started and remove its state
	@$(OFFLINE) python -m local down

.PHONY: demo-lifecycle
demo-lifecycle: install  ## Train, promote, refuse, roll back and explain a model on embedded parts, role by role
	@$(OFFLINE) python -m local demo-lifecycle $(ARGS)

.PHONY: env
env: install  ## Print what connects a client to `make up`: eval "$$(make -s env ROLE=contributor)"
	@$(OFFLINE) python -m local env $(if $(ROLE),--role $(ROLE))

.PHONY: test
test: install  ## Run the tests (under 8 minutes on 2 cores)
	@$(PYTEST) -m "not slow and not image" $(ARGS)

.PHONY: test-slow
test-slow: install  ## Run the tests that take minutes
	@$(PYTEST) -m "slow and not image" $(ARGS)

.PHONY: test-image
test-image: install  ## Build the image with an engine of its own, and run it as its task does (Linux, root)
	@$(PYTEST) -m image tests/image $(ARGS)

.PHONY: check
check: install  ## Formatting, lint, types, import layers, shell syntax, workflows
	@ruff format --check --quiet . || { echo "check: run: make format" >&2; exit 1; }
	@ruff check --quiet .
	@mypy
	@seen=$$(lint-imports --no-cache) || { echo "$$seen"; exit 1; }; echo "import layers: kept"
	@sh -n install.sh && sh -n .ci/run
	@zizmor --offline --quiet --no-progress .github/workflows

.PHONY: format
format: install  ## Format the code and fix what the linter can fix
	@ruff format --quiet . && ruff check --quiet --fix .

.PHONY: synth
synth: install  ## Synthesize the CloudFormation templates of ENV into cdk.out (offline)
	@$(OFFLINE) python -m stacks.config_file $(ENV)
	@rm -rf cdk.out
	@$(OFFLINE) npx cdk synth --quiet -c env=$(ENV) $(ARGS)
	@echo "templates of $(ENV): cdk.out/*.template.json"

.PHONY: cost
cost: install  ## Print what ENV costs a month by list prices: REGION=…, PROFILE=team|FILE, AGAINST=ENV|FILE
	@$(OFFLINE) python -m cost --env $(ENV) $(if $(AGAINST),--against $(AGAINST)) $(if $(REGION),--region $(REGION)) \
		$(if $(PROFILE),--profile $(PROFILE)) $(ARGS)

# AWS: each begins with the environment's file and the credentials, since a synthesis takes half a minute.

.PHONY: credentials
credentials: install  ## Say who would deploy ENV, into which account and region
	@python -m preflight.credentials $(ENV)

.PHONY: bootstrap
bootstrap: credentials  ## Prepare the account and region of ENV for the CDK, once
	@rm -rf cdk.out
	@npx cdk bootstrap -c env=$(ENV) $(ARGS)

.PHONY: diff
diff: credentials  ## Compare ENV with what is deployed
	@rm -rf cdk.out
	@npx cdk diff -c env=$(ENV) $(ARGS)

.PHONY: preflight
preflight: install  ## Look at the account before anything of ENV is made there; changes nothing
	@python -m preflight --env $(ENV) $(ARGS)

DEPLOY_FAILED = deploy: the stack that failed is as it was. Only if a migration that drains has succeeded before, the \
	former version cannot use its schema: go back with make restore ENV=$(ENV) SNAPSHOT=… \
	(docs/operations.md\#roll-back); the migration's signal and log name the snapshot

.PHONY: deploy
deploy: credentials  ## Deploy ENV and prove it (SMOKE=no does not); asks before it widens permissions, in CI: ARGS="--require-approval never"
	@python -m preflight.leftovers $(ENV)
	@test "$(PREFLIGHT)" = no || python -m preflight --env $(ENV) || { \
		echo "deploy: correct what has a ✗, or deploy all the same with PREFLIGHT=no" >&2; exit 1; }
	@rm -rf cdk.out
	@npx cdk deploy --all -c env=$(ENV) --outputs-file cdk-outputs-$(ENV).json $(ARGS) || { echo "$(DEPLOY_FAILED)" >&2; exit 1; }
	@test "$(SMOKE)" = no || python -m operations smoke --env $(ENV) || test $$? -eq 2  # 2: it cannot run here

STACKS ?= MlflowOnAws-$(ENV)-Service

.PHONY: destroy
destroy: credentials  ## Remove the service of ENV, and no run or model; both stacks with STACKS=--all
	@python -m preflight.removal $(ENV) $(STACKS)
	@rm -rf cdk.out
	@npx cdk destroy $(STACKS) -c env=$(ENV) $(ARGS)

.PHONY: verify
verify: install  ## Check the resources of ENV in the account, property by property; changes nothing
	@$(OFFLINE) python -m stacks.config_file $(ENV)
	@python -m verify_account --env $(ENV) $(ARGS)

.PHONY: import
import: install  ## Make another MLflow part of ENV: FROM=postgresql://… | mysql://… | sqlite:///… | dump.sql | mlruns/ | https://…
	@test -n "$(FROM)" || { echo "import: name the source: make import FROM=sqlite:///mlflow.db ENV=$(ENV)" >&2; exit 2; }
	@python -m operations import --env $(ENV) --from "$(FROM)" $(if $(NAME),--name "$(NAME)") \
		$(if $(ARTIFACTS),--artifacts $(ARTIFACTS)) $(if $(filter-out no,$(DRY_RUN)),--dry-run) $(ARGS)

.PHONY: rehearse
rehearse: install  ## Migrate a copy of ENV's database with this tree's image, and compare; SNAPSHOT=…, FRESH=yes
	@python -m operations rehearse --env $(ENV) $(if $(SNAPSHOT),--snapshot $(SNAPSHOT)) $(if $(filter-out no,$(FRESH)),--fresh) $(ARGS)

.PHONY: restore
restore: install  ## Put a snapshot (SNAPSHOT=name) or a moment (AT=2026-11-28T10:00:00Z) in the place of ENV's database
	@test -n "$(SNAPSHOT)$(AT)" || { echo "restore: name what: make restore SNAPSHOT=name ENV=$(ENV), or AT=time" >&2; exit 2; }
	@python -m operations restore --env $(ENV) $(if $(AT),--at "$(AT)") $(if $(SNAPSHOT),--snapshot "$(SNAPSHOT)") \
		$(if $(filter yes,$(YES)),--yes) $(if $(filter no,$(SMOKE)),--no-smoke) $(ARGS)

.PHONY: gc
gc: install  ## Remove for good what was deleted DAYS ago; DRY_RUN=yes says what would go
	@python -m operations gc --env $(ENV) $(if $(DAYS),--days $(DAYS)) $(if $(filter-out no,$(DRY_RUN)),--dry-run) $(ARGS)

.PHONY: erase
erase: install  ## Erase for good, under break glass: RUN= | EXPERIMENT= | AUTHOR= | DATASET= | TRACE_USER= | TRACE_SESSION=; DRY_RUN=yes
	@python -m operations erase --env $(ENV) $(if $(RUN),--run="$(RUN)") $(if $(EXPERIMENT),--experiment="$(EXPERIMENT)") \
		$(if $(AUTHOR),--author="$(AUTHOR)") $(if $(DATASET),--dataset="$(DATASET)") \
		$(if $(TRACE_USER),--trace-user="$(TRACE_USER)") $(if $(TRACE_SESSION),--trace-session="$(TRACE_SESSION)") \
		$(if $(filter-out no,$(DRY_RUN)),--dry-run) $(if $(filter yes,$(YES)),--yes) $(ARGS)

.PHONY: drill
drill: install  ## Restore a copy of ENV's database, an object and a model; compare, report RPO and RTO
	@python -m operations drill --env $(ENV) $(ARGS)

.PHONY: restore-artifacts
restore-artifacts: install  ## Bring back from S3 what was deleted: OF=models:/NAME/1 [AT=time] [APPLY=yes]
	@test -n "$(OF)" || { echo "restore-artifacts: name what: make restore-artifacts OF=models:/NAME/1 ENV=$(ENV)" >&2; exit 2; }
	@python -m operations restore-artifacts --env $(ENV) --of "$(OF)" $(if $(AT),--at "$(AT)") \
		$(if $(filter yes,$(APPLY)),--apply) $(ARGS)

.PHONY: relocate
relocate: install  ## Copy the artifacts of a restored database into ENV, rewrite its URIs: OLD=s3://… [COPIES=s3://…]
	@test -n "$(OLD)" || { echo "relocate: name the former root: make relocate OLD=s3://BUCKET ENV=$(ENV)" >&2; exit 2; }
	@python -m operations relocate --env $(ENV) --old "$(OLD)" $(if $(COPIES),--copies "$(COPIES)") \
		$(if $(filter-out no,$(DRY_RUN)),--dry-run) $(ARGS)

.PHONY: smoke
smoke: install  ## Prove a deployment: make smoke URL=https://mlflow.example.com
	@test -n "$(URL)" || { echo "smoke: name the deployment: make smoke URL=https://mlflow.example.com" >&2; exit 2; }
	@python -m client_smoke --tracking-uri "$(URL)" $(ARGS)

.PHONY: bench
bench: install  ## Measure side by side with stock MLflow; results in bench/results
	@$(OFFLINE) python -m bench $(ARGS)

.PHONY: lock
lock: install  ## Compile every lock file again after a change of an .in file or of a constraint
	$(COMPILE) requirements.in -o requirements.txt
	$(COMPILE) requirements-dev.in -c requirements.txt -o requirements-dev.txt
	sed -n 's/^UV_VERSION=/uv==/p' install.sh | $(COMPILE) - -o requirements-uv.txt
	$(COMPILE) local/emulator/requirements.in -o local/emulator/requirements.txt
	$(COMPILE) tests/deploy/awscli.in -o tests/deploy/awscli.txt
	grep '^aws-cdk-lib==' requirements.in | $(COMPILE) - tests/stacks/rule_packs.in -o tests/stacks/rule_packs.txt
	$(COMPILE) server/requirements.in -c requirements.txt -o server/requirements.txt
	grep '^mlflow==' requirements.in | $(COMPILE) --no-deps - >> server/requirements.txt
	grep '^hatchling==' server/requirements.in | $(COMPILE) - -c server/requirements.txt -o requirements-build.txt
	$(COMPILE) .github/scan.in -o .github/scan.txt
	$(COMPILE) $(CLIENTS)/mlflow-2.11.3.in -c client-constraints.txt -o $(CLIENTS)/mlflow-2.11.3.txt
	$(COMPILE) $(CLIENTS)/mlflow-2.22.5.in -c client-constraints.txt -o $(CLIENTS)/mlflow-2.22.5.txt
	grep '^mlflow==' requirements.in | $(COMPILE) - $(CLIENTS)/mlflow-current.in -c client-constraints.txt \
		-o $(CLIENTS)/mlflow-current.txt
	$(COMPILE) --no-deps $(CLIENTS)/newer-skops.in -o $(CLIENTS)/newer-skops.txt
	$(COMPILE) $(CLIENTS)/mlflow-3.1.4.in -c client-constraints.txt -o $(CLIENTS)/mlflow-3.1.4.txt
	$(COMPILE) $(CLIENTS)/mlflow-3.14.0.in -c client-constraints.txt -o $(CLIENTS)/mlflow-3.14.0.txt
	$(COMPILE) --no-deps $(CLIENTS)/stores.in -o $(CLIENTS)/stores.txt
