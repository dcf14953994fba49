# Copass on this machine. `make help` lists what can be asked; it works from any folder
# (make -C /path/to/copass up), as root and as a user, and offline once installed.
ROOT := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
VENV := $(ROOT)/.venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PACKAGES := $(patsubst %/pyproject.toml,%,$(wildcard $(ROOT)/libs/*/pyproject.toml \
	$(ROOT)/services/*/pyproject.toml $(ROOT)/tools/pyproject.toml $(ROOT)/edge/pyproject.toml))
MIGRATIONS = $(wildcard $(ROOT)/libs/common/src/common/migrations/*.sql $(ROOT)/services/*/src/*/migrations/*.sql)
CODE = libs services tools edge tests
# The first of these that is 3.11 or later.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name))))
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install up down status logs kafka demo simulate bench browser models test test-kafka test-faults lint format lock contracts clean clean-data

help: ## This list
	@echo "make TARGET [VARIABLE=value]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' "$(ROOT)/Makefile"
	@echo "Variables: DETACH=1 (up returns when ready), KAFKA=apache, COPASS_PORT_BASE=8000, COPASS_HOME=folder, BENCH=1"

install: $(STAMP) ## Make .venv with everything, at the versions and hashes of requirements.lock

$(STAMP): $(ROOT)/requirements.lock $(addsuffix /pyproject.toml,$(PACKAGES))
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name one: make install PYTHON=/path/to/python3"; exit 1; }
	@"$(RUN)" -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear "$(VENV)" || \
		{ echo "python3 -m venv does not work here; on Debian: apt install python3-venv"; exit 1; }
	@echo "installing (once; later runs need no network)"
	@awk '/^uv==/ { wanted = 1 } wanted { print } wanted && !/\\$$/ { exit }' "$(ROOT)/requirements.lock" > "$(VENV)/uv.lock"
	@"$(RUN)" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$(VENV)/uv.lock"
	@"$(VENV)/bin/uv" pip install --quiet --python "$(RUN)" --require-hashes -r "$(ROOT)/requirements.lock"
	@"$(VENV)/bin/uv" pip install --quiet --python "$(RUN)" --no-deps --no-build-isolation $(addprefix -e ,$(foreach one,$(PACKAGES),"$(one)"))
	@"$(RUN)" -m compileall -q "$(ROOT)/libs" "$(ROOT)/services" "$(ROOT)/tools" "$(ROOT)/edge"
	@touch "$@"

up: $(STAMP) ## Start the whole network; DETACH=1 returns when it is ready
	@"$(RUN)" -m copass up

down: ## Stop it, and whatever an earlier run left
	@test ! -x "$(RUN)" || "$(RUN)" -m copass down

status: $(STAMP) ## What runs, and how much memory it takes
	@"$(RUN)" -m copass status

logs: $(STAMP) ## Follow the logs; NAME=access-api for one
	@"$(RUN)" -m copass logs $(NAME)

kafka: $(STAMP) ## Fetch Apache Kafka with Maven, for KAFKA=apache
	@"$(RUN)" -m copass kafka

demo: $(STAMP) ## Tell the story of the first door, each step checked; BENCH=1 measures block to deny
	@"$(RUN)" -m copass demo $(ARGS)

simulate: $(STAMP) ## A plausible day; ARGS="--taps-per-second 50 --minutes 2"
	@"$(RUN)" -m copass simulate $(ARGS)

bench: $(STAMP) ## Measure the numbers of the goals; writes bench/results.json
	@"$(RUN)" -m copass bench $(ARGS)

# The slow files first, so that neither of the two workers is left alone with one at the end.
test: $(STAMP) ## Unit, integration and contract tests, against real servers
	@cd "$(ROOT)" && "$(RUN)" -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder tests/e2e tests/browser tests/integration tests/models tests/contract tests/unit $(ARGS)

browser: ## Install Chromium for the tests of the pages, where there is apt
	@command -v chromium >/dev/null || { command -v apt-get >/dev/null && \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
		{ echo "Chromium cannot be installed here (apt-get as root is needed); the tests of the pages are skipped"; exit 1; }

models: ## Install Spin for the tests of the models (docs/models.md), where there is apt
	@{ command -v spin && command -v gcc; } >/dev/null || { command -v apt-get >/dev/null && \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends spin gcc libc6-dev >/dev/null; } || \
		{ echo "Spin and gcc cannot be installed here (apt-get as root is needed); the tests of the models are skipped"; exit 1; }

test-kafka: $(STAMP) kafka ## The tests that use a broker, with Apache Kafka
	@cd "$(ROOT)" && KAFKA=apache "$(RUN)" -m pytest -q -n $(WORKERS) --dist loadfile --only-kafka tests/integration tests/faults $(ARGS)

test-faults: $(STAMP) ## A smoke of the tests that kill real processes; FULL=1 for all of them
	@cd "$(ROOT)" && "$(RUN)" -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder tests/faults $(ARGS)

lint: $(STAMP) ## Style, types, imports, migrations
	@cd "$(ROOT)" && "$(VENV)/bin/ruff" check $(CODE) && "$(VENV)/bin/ruff" format --check $(CODE)
	@cd "$(ROOT)" && "$(VENV)/bin/mypy" libs/*/src services/*/src tools/src edge/src
	@cd "$(ROOT)" && PYTHONWARNINGS=ignore "$(VENV)/bin/lint-imports" --no-cache
	@cd "$(ROOT)" && "$(VENV)/bin/squawk" --config .squawk.toml $(MIGRATIONS)

format: $(STAMP) ## Let ruff put the code in order
	@cd "$(ROOT)" && "$(VENV)/bin/ruff" check --fix $(CODE); "$(VENV)/bin/ruff" format $(CODE)

lock: $(STAMP) ## Compile requirements.in to requirements.lock
	@cd "$(ROOT)" && "$(VENV)/bin/uv" pip compile --quiet --universal --generate-hashes --python-version 3.11 requirements.in -o requirements.lock

contracts: $(STAMP) ## Generate contracts/ from the code
	@"$(RUN)" -m copass contracts $(ARGS)

# By name: COPASS_HOME may hold what is not ours.
clean-data: down ## Stop, and forget the network's data and secrets
	@cd "$(or $(COPASS_HOME),$(ROOT)/.copass)" 2>/dev/null && \
		rm -rf postgres valkey tansu kafka-log logs pids demo.json run.json secrets.json card-keys.json control.sock lock || true

clean: clean-data ## Also remove .venv, caches and Apache Kafka
	@rm -rf "$(ROOT)/.copass" "$(VENV)" "$(ROOT)/.pytest_cache" "$(ROOT)/.mypy_cache" "$(ROOT)/.ruff_cache" "$(ROOT)/.hypothesis" "$(ROOT)/.import_linter_cache"
	@find "$(ROOT)" -name __pycache__ -not -path '*/node_modules/*' -prune -exec rm -rf {} +
