# Sourced by the scripts: where things are, how they talk, how they become root.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
CACHE=${PRICER_CACHE:-$HOME/.cache/pricer}
export PRICER_CACHE=$CACHE CCACHE_DIR=$CACHE/ccache

say() { printf '%s: %s\n' "${0##*/}" "$*"; }

# One sentence, then exit 1.
fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# Sets AS_ROOT to what a command that needs root starts with. To be called where standard input and
# output are still the caller's, so that sudo can ask for a password and a failure is seen.
become_root() {
  AS_ROOT=()
  [[ $EUID -ne 0 ]] || return 0
  command -v sudo >/dev/null || fail "Installing Debian packages needs root: run this as root or install sudo."
  if [[ -t 0 ]]; then
    sudo -v || fail "Installing Debian packages needs root, which sudo refused."
  else
    sudo -n true 2>/dev/null || fail "Installing Debian packages needs root: sudo wants a password and no terminal is there to ask on."
  fi
  AS_ROOT=(sudo)
}

# Waits until this run alone holds the named lock of the cache folder. The lock ends with the process.
take_lock() {
  mkdir -p "$CACHE"
  exec 9>"$CACHE/$1.lock"
  if ! flock -n 9; then
    say "waiting for another run that uses $CACHE"
    flock 9
  fi
}

# Runs a build. A terminal sees ninja's own status line; a log gets one line per tenth of the work, and
# everything that is not progress.
run_ninja() {
  if [[ -t 1 ]]; then
    ninja "$@"
    return
  fi
  ninja "$@" | awk '
    match($0, /^\[[0-9]+\/[0-9]+\]/) {
      split(substr($0, 2, RLENGTH - 2), at, "/")
      tenth = int(10 * at[1] / at[2])
      if (tenth != shown) { print; fflush(); shown = tenth }
      next
    }
    { print; fflush() }'
}

# configure PRESET: in the source root, which stays the working directory.
configure() {
  cd "$ROOT"
  cmake --preset "$1" >"$ROOT/.deps/configure-$1.log" 2>&1 || {
    cat "$ROOT/.deps/configure-$1.log" >&2
    fail "CMake could not configure the preset $1."
  }
}

# build_and_test PRESET: configures, builds and runs the tests of one preset.
build_and_test() {
  configure "$1"
  say "building the preset $1 in build/$1"
  run_ninja -C "build/$1"
  say "testing the preset $1"
  ctest --preset "$1" -j "$(nproc)"
}
