#!/usr/bin/env bash
# Sets everything up, checks the code's style and types, and runs all tests with their coverage.
#
# Usage:
#   bash scripts/test.sh                 everything, as continuous integration does
#   bash scripts/test.sh -k poses        only pytest, with these arguments, no checks and no floor for coverage
#   bash scripts/test.sh -m "not slow"   … for instance without the tests that take long

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
source "$here/setup.sh" dev
cd "$MTCM_REPOSITORY"

workers=$(env -u OMP_NUM_THREADS nproc)
export OMP_NUM_THREADS=1 # the tests run side by side, one process a core
export OMP_WAIT_POLICY=PASSIVE
export TOKENIZERS_PARALLELISM=false

if [ $# -gt 0 ]; then
  exec python -m pytest -n "$workers" --dist loadfile "$@"
fi

# The tests of pages want a real browser.
if ! command -v chromium chromium-browser google-chrome >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing Chromium"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium; } \
      >>"$MTCM_VENV/setup.log" 2>&1 || true
  fi
  command -v chromium chromium-browser google-chrome >/dev/null || say "no Chromium: tests of pages in a browser are skipped"
fi

failed=()
check() {
  say "$*"
  "$@" || failed+=("$*")
}
check ruff check .
check ruff format --check .
check pyright --pythonpath "$MTCM_VENV/bin/python"

say "pytest with coverage on $workers processes"
status=0
python -m pytest -n "$workers" --dist loadfile --durations=15 \
  --cov=mtcm_nerfstudio --cov-report=term:skip-covered --cov-fail-under=85 || status=$?
if [ ${#failed[@]} -gt 0 ]; then
  printf 'failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
exit "$status"
