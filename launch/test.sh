#!/usr/bin/env bash
# Sets up .venv, then runs ruff, mypy, the check of the order of imports, and
# the tests in two processes (WORKERS=0: in one). Arguments go to pytest:
#   bash launch/test.sh                    some 20 minutes on 2 cores
#   bash launch/test.sh -m slow            the longer checks
#   bash launch/test.sh tests/ops/gradient_descent_test.py
EXTRAS=test
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
make_environment
ruff check .
ruff format --check .
mypy
lint-imports
# All tests of a file run in one process, since they share compiled programs.
exec python -m pytest -n "${WORKERS:-2}" --dist loadfile "$@"
