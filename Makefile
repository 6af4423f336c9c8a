# `make help` lists the targets. All of them work in .venv, which .ci/prepare makes.
PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest -q -p no:cacheprovider
SHELL_FILES := tests/packaging/one-node .ci/prepare .ci/run packaging/bootstrap packaging/build-spank train/sbatch/pretrain.sbatch

.PHONY: help demo test check ansible-lint unit lab-test bench packages packages-lint clean

help:          ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo:          ## a training job outlives a dead GPU, live, on this machine (root)
	.venv/bin/nodewatch lab demo --output build/demo

test: check unit lab-test  ## everything that CI runs (root)

check:         ## lint, types, shell, import contracts
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy nodewatch train/nodewatch_train
	shellcheck $(SHELL_FILES)
	.venv/bin/lint-imports setup.cfg
	$(MAKE) --no-print-directory ansible-lint

ansible-lint:  ## the playbooks, at the production profile
	cd ansible && ../.venv/bin/ansible-lint --offline -q

unit:          ## all tests that need no cluster
	OMP_NUM_THREADS=1 $(PYTEST) -m 'not lab'

lab-test:      ## tests on the rehearsal cluster (root, minutes)
	$(PYTEST) -m lab tests/lab

bench:         ## the figures of docs/measured.md, as JSON under build/bench (root)
	$(PYTHON) tests/bench/run.py --output build/bench

packages:      ## the Debian packages, into build/packages
	packaging/build

packages-lint: ## lintian and rpmlint on them (apt-get install lintian rpm rpmlint)
	packaging/build && packaging/build --rpm
	lintian --allow-root --fail-on error,warning build/packages/*.deb
	rpmlint -c packaging/rpm/rpmlint.toml build/packages/*.rpm

clean:         ## what was built here; the cached images of the lab stay
	rm -rf build
