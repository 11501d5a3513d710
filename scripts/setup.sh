#!/usr/bin/env bash
# Makes the virtual environment that scripts/demo.sh and scripts/test.sh run in, once, and reuses it.
#
# Usage:
#   bash scripts/setup.sh          what the commands need
#   bash scripts/setup.sh dev      … and what the tests need
#   source scripts/setup.sh run    … from another script: the environment's commands are then first on PATH
#
# MTCM_VENV    where the environment lies (default: .venv in the repository; an existing one is taken as it is)
# MTCM_PYTHON  the Python to make it with (default: python3.11 if there is one, else the first of 3.10 or newer)

set -euo pipefail

MTCM_REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
MTCM_VENV=${MTCM_VENV:-$MTCM_REPOSITORY/.venv}
MTCM_STARTED=${MTCM_STARTED:-$SECONDS}

# pip does not compile the packages here: Python does when it first imports them, and must be allowed to keep that.
unset PYTHONDONTWRITEBYTECODE

say() { printf '[%3d s] %s\n' "$((SECONDS - MTCM_STARTED))" "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# A Python that starts, is new enough and can make environments.
find_python() {
  local candidate seen=""
  for candidate in ${MTCM_PYTHON:-python3.11 python3 python3.12 python3.10 python3.13}; do
    "$candidate" -c '' 2>/dev/null || continue
    seen="$seen $("$candidate" --version 2>&1)"
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || continue
    seen="$seen (no venv module)"
    "$candidate" -c 'import venv, ensurepip' 2>/dev/null || continue
    echo "$candidate"
    return
  done
  [ -n "$seen" ] || die "no Python found: install Python 3.10 or newer with venv (Debian, Ubuntu: apt-get install python3-venv)."
  die "Python 3.10 or newer with its venv module is needed, found:$seen. Debian, Ubuntu: apt-get install python3-venv."
}

# Fit: its Python starts, has pip, and the programs in it are its own (in a folder that was moved they are not).
environment_is_fit() {
  local owner
  "$MTCM_VENV/bin/python" -c "import pip" 2>/dev/null || return 1
  [ -e "$MTCM_VENV/bin/pip" ] || return 0
  owner=$(head -n 2 "$MTCM_VENV/bin/pip" | grep -oE '/[^"]*/bin/python[0-9.]*' | head -n 1) || return 0
  [ "$(dirname "$owner")" -ef "$MTCM_VENV/bin" ]
}

# An environment that somebody else made is never emptied.
make_environment() {
  local python clear=""
  environment_is_fit && return
  if [ -e "$MTCM_VENV/.mtcm-made" ]; then
    say "the environment in $MTCM_VENV is damaged or was moved: making it anew"
    clear=--clear
  elif [ -n "$(find "$MTCM_VENV" -mindepth 1 ! -name .mtcm-lock | head -n 1)" ]; then
    rm -f "$MTCM_VENV/.mtcm-lock"
    die "$MTCM_VENV is not empty and not an environment with pip; set MTCM_VENV to another folder."
  fi
  python=$(find_python) || exit 1
  say "making a virtual environment in $MTCM_VENV with $("$python" --version)"
  touch "$MTCM_VENV/.mtcm-made"
  "$python" -m venv $clear "$MTCM_VENV" || die "could not make a virtual environment in $MTCM_VENV."
  touch "$MTCM_VENV/.mtcm-made"
}

# What decides whether an installation is still the right one.
fingerprint() {
  {
    echo "$MTCM_REPOSITORY" "$("$MTCM_VENV/bin/python" --version)"
    cat "$MTCM_REPOSITORY/pyproject.toml" "$MTCM_REPOSITORY/scripts/"{requirements.txt,setup.sh}
  } | sha256sum | cut -d' ' -f1
}

# The pins, save those of a torch that the environment had before us and that is new enough to be left alone.
write_constraints() {
  local torch
  torch=$("$MTCM_VENV/bin/python" - 2>/dev/null <<'PY'
import importlib.metadata as metadata
import re
torch = metadata.version("torch")
if tuple(int(part) for part in re.findall(r"\d+", torch)[:2]) >= (2, 10):
    print(torch)
PY
  ) || torch=""
  if [ -n "$torch" ]; then
    grep -vE '^torch(vision)?==' "$MTCM_REPOSITORY/scripts/requirements.txt"
    echo "torch==$torch"
  else
    cat "$MTCM_REPOSITORY/scripts/requirements.txt"
  fi
}

# Runs a command with its output in a log, and says every 20 seconds how far it is: the last line of pip's or
# nerfstudio's that tells.
run_quietly() {
  local log=$1 pid last progress
  shift
  "$@" >"$log" 2>&1 &
  pid=$!
  last=$SECONDS
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.5
    [ $((SECONDS - last)) -ge 20 ] || continue
    last=$SECONDS
    progress=$(grep -aoE '^((Collecting|Processing|Downloading|Installing|Building) .*|[0-9]+ \([0-9.]+%\))' "$log" | tail -n 1) || true
    progress=${progress:-still at it}
    say "  … ${progress%%:*}"
  done
  wait "$pid"
}

pip_install() { # what is used gets compiled when it is used, which saves a minute here
  run_quietly "$1" "$MTCM_VENV/bin/python" -m pip install --disable-pip-version-check --prefer-binary --no-compile \
    --progress-bar off "${@:2}" libusb-package
}

install_packages() {
  local what="$MTCM_REPOSITORY" log="$MTCM_VENV/setup.log" constraints="$MTCM_VENV/constraints.txt"
  if [ "$1" = dev ]; then what="$MTCM_REPOSITORY[dev]"; fi
  write_constraints >"$constraints"
  say "installing packages (a few minutes the first time; details in $log)"
  pip_install "$log" --constraint "$constraints" --editable "$what" && return
  if grep -qE 'No matching distribution|ResolutionImpossible|conflicting dependencies' "$log"; then
    say "the versions that were tried are not to be had for this Python: taking what pyproject.toml allows"
    mv "$log" "$MTCM_VENV/setup-as-tried.log"
    pip_install "$log" --editable "$what" && return
  fi
  tail -n 15 "$log" >&2
  die "pip could not install the packages; the whole log is $log."
}

# nerfstudio calls a program named ffmpeg; where the machine has none, the one inside imageio-ffmpeg serves.
provide_ffmpeg() {
  # One in another environment that happens to be active is not there the next time.
  (PATH=${PATH//"${VIRTUAL_ENV:-/none}/bin:"/}; command -v ffmpeg >/dev/null) && return
  local binary
  if binary=$("$MTCM_VENV/bin/python" -c 'import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())' 2>/dev/null)
  then
    ln -sf "$binary" "$MTCM_VENV/bin/ffmpeg"
  else
    say "going without ffmpeg: ns-render will not run"
  fi
}

missing_libraries() {
  find "$1/open3d" "$1/cv2" "$1/pycolmap" \( -name 'libOpen3D.so*' -o -name 'cv2*.so' -o -name '_core*.so' \) \
    -exec ldd {} + 2>/dev/null | awk '/not found/ {print $1}' | sort -u || true
}

# Open3D (it comes with nerfstudio) wants libraries of the desktop that a small machine lacks.
provide_libraries() {
  local packages missing
  packages=$("$MTCM_VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  missing=$(missing_libraries "$packages")
  case $missing in *libusb-1.0*) # Open3D looks for libraries in its own folder first
    ln -sf ../libusb_package/libusb-1.0.so "$packages/open3d/libusb-1.0.so.0"
    missing=$(missing_libraries "$packages") ;;
  esac
  if [ -n "$missing" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing the system's libraries for Open3D and OpenCV: $(echo $missing)"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      libgl1 libegl1 libgomp1 libx11-6 libidn2-0 libudev1 libusb-1.0-0; } >>"$MTCM_VENV/setup.log" 2>&1 || true
    missing=$(missing_libraries "$packages")
  fi
  [ -z "$missing" ] || say "going without $(echo $missing): ns-export and reading point clouds need Open3D, which needs them"
}

setup() {
  local level=$1 stamp current
  case $level in run | dev) ;; *) die "setup.sh takes run or dev, got '$level'." ;; esac
  mkdir -p "$MTCM_VENV" || die "cannot write to $MTCM_VENV."
  MTCM_VENV=$(cd "$MTCM_VENV" && pwd -P)
  if command -v flock >/dev/null; then # two scripts that are started together take turns
    exec 9>"$MTCM_VENV/.mtcm-lock"
    flock 9
  fi
  make_environment
  current=$(fingerprint)
  for stamp in "$MTCM_VENV/.mtcm-dev" "$MTCM_VENV/.mtcm-$level"; do
    if [ "$(cat "$stamp" 2>/dev/null)" = "$current" ]; then return; fi
  done
  install_packages "$level"
  provide_ffmpeg
  provide_libraries
  echo "$current" >"$MTCM_VENV/.mtcm-$level"
}

setup "${1:-run}"
exec 9>&-
say "the environment in $MTCM_VENV is ready"
export PATH="$MTCM_VENV/bin:$PATH" VIRTUAL_ENV="$MTCM_VENV" MPLBACKEND=Agg
