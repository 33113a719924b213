# Every target makes its own environment in .venv: Python 3.11 or newer and make are enough.

PYTHON ?= python3
# Passed on to what runs: make test ARGS="-k packaging"
ARGS ?=
# Three times as many processes as there are cores share the tests, because most of them wait for
# something most of the time.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(3 * os.cpu_count())')
# A Django other than the newest: make test DJANGO='Django~=5.2.0'
DJANGO ?=

# Even if the shell says otherwise: the hundreds of processes of a run need not compile the same modules.
unexport PYTHONDONTWRITEBYTECODE

RUN := .venv/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check
TOGETHER = -n $(WORKERS) --maxprocesses=8 --dist=worksteal
# Beside three others, on a busy machine, a test may stand still for longer than a lease lasts.
SECOND_GO = echo "What failed is tried once more, by itself." && \
	$(RUN) -m pytest --last-failed --last-failed-no-failures=none --exitfirst $(ARGS)
# The heart of everything, with files on disk and in memory, and records in memory and one Redis.
HEART := tests/records tests/filesystem $(patsubst %,tests/test_%.py,records_read sweep storage links \
	policies settings commands tasks imports)
asked = $(filter-out 0 no false,$(1))

.PHONY: help demo docs quick test test-faults openedx guards lint coverage bench pythons \
	pictures release clean
.DELETE_ON_ERROR:
# Two targets share one environment, which pip must not change twice at a time.
.NOTPARALLEL:

help:
	@echo "make demo           the whole service on this machine, until Ctrl-C"
	@echo "make demo ONCE=1    plays the demo's scenario by itself; S3=1: on an S3 endpoint"
	@echo "make docs           the documentation, in build/docs; a warning is an error"
	@echo "make quick          the tests of the heart alone, in less than a minute"
	@echo "make test           style, types, docs, tests"
	@echo "make test-faults    the fault suite in its full form, and the table of what it measured"
	@echo "make openedx        blocks of Open edX on the wheel, on disk and on S3"
	@echo "make guards         takes out each guard of the code in turn: some test must go red"
	@echo "make lint           style and types alone"
	@echo "make coverage       all tests, and what they did not reach; below the floor it fails"
	@echo "make bench          speed, against the bare calls and against openedx-django-pyfs"
	@echo "make pythons        the wheel on every Python on PATH, with each Django"
	@echo "make pictures       photographs the demo, the admin page and Flower for the documentation"
	@echo "make release VERSION=0.2.0   version, date, commit, tag, packages; nothing is uploaded"
	@echo "make clean          removes what the others made"

demo: .venv/demo.stamp
	$(RUN) -m demo $(if $(call asked,$(ONCE)),--once) $(if $(call asked,$(S3)),--s3)

docs: .venv/docs.stamp
	$(RUN) -m sphinx -W --keep-going -b html $(ARGS) docs build/docs

quick: .venv/dev.stamp
	$(RUN) -m pytest $(TOGETHER) $(HEART) -k "not (s3 or sharded or sentinel or cluster)" $(ARGS)

test: .venv/dev.stamp
	@echo "While mypy has one core, the modules of the tests are compiled on another."
	@$(RUN) -m pytest --collect-only --quiet >/dev/null 2>&1 & $(MAKE) --no-print-directory lint && wait
	$(RUN) -m pytest $(TOGETHER) --cache-clear $(ARGS) || { [ $$? -eq 1 ] && $(SECOND_GO); }

test-faults: .venv/dev.stamp
	$(RUN) -m pytest tests/faults --full $(ARGS)

openedx: .venv/dev.stamp
	$(RUN) -m pytest tests/test_openedx.py --full $(ARGS)

guards: .venv/dev.stamp
	$(RUN) -m tests.guards $(ARGS)

lint: .venv/dev.stamp
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	$(if $(CI)$(shell command -v luacheck),luacheck --quiet djpyfs,\
	@echo "No luacheck here: the Lua scripts were not linted")

coverage: .venv/dev.stamp
	$(RUN) -m pytest $(TOGETHER) --cov --cov-report=term $(ARGS)

bench: .venv/dev.stamp
	$(RUN) -m tests.bench $(ARGS)

pythons: .venv/dev.stamp
	$(RUN) -m tests.pythons $(ARGS)

pictures: .venv/dev.stamp
	$(RUN) -m tests.pictures

release: .venv/dev.stamp
	$(RUN) tools/release.py $(VERSION)

clean:
	rm -rf .venv .bench .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Most of the modules are never imported, and those that are get compiled then.
.venv/%.stamp: pyproject.toml .venv/pyvenv.cfg
	@echo "Installing into .venv what djpyfs[$*] needs; the first time this takes a minute."
	$(PIP) install --quiet --no-compile --editable '.[$*]' $(if $(DJANGO),'$(DJANGO)')
	@touch $@

.venv/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	"djpyfs needs Python 3.11 or newer, and $(PYTHON) is %d.%d: make PYTHON=python3.13, say" \
	% sys.version_info[:2])'
	$(PYTHON) -m venv --clear --upgrade-deps .venv
