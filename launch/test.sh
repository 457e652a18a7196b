#!/usr/bin/env bash
# Sets up .venv, then ruff, mypy, the order of imports, and the tests in two
# processes (WORKERS=0: in one). Arguments go to pytest:
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
# Two processes; a file stays in one, since its tests share compiled programs.
exec python -m pytest -n "${WORKERS:-2}" --dist loadfile "$@"
