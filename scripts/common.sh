# Shared by the scripts: what is needed from the system, and how it is installed. To be sourced.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
jobs=$(nproc)

build_packages=(g++ cmake ninja-build pkg-config ccache libeigen3-dev zlib1g-dev libdnnl-dev nlohmann-json3-dev
  libcli11-dev doctest-dev libbenchmark-dev)

say() { printf '\033[1m%s\033[0m\n' "$*"; }

# need PACKAGE...: installs those of the Debian packages that are missing, where that may be done without asking.
need() {
  local missing=() package
  if ! command -v dpkg-query >/dev/null; then
    echo "This is no Debian or Ubuntu: going on in the hope that these, or what they hold, are installed: $*"
    return 0
  fi
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  local install="apt-get install -y --no-install-recommends ${missing[*]}" sudo=
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      sudo="sudo -n"
    else
      printf 'Missing packages. Run this, then start again:\n\n  sudo %s\n\n' "$install" >&2
      exit 2
    fi
  fi
  say "Installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive $install -qq >/dev/null </dev/null ||
    { echo "apt-get failed; by hand: $sudo $install" >&2; exit 2; }
}

# configure PRESET [OPTION...]: quiet unless it fails.
configure() {
  local preset=$1 log
  shift
  log=$(mktemp)
  if ! cmake --preset "$preset" "$@" >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    return 1
  fi
  grep '^-- Tandem' "$log" | sed 's/^-- //' || true
  rm -f "$log"
}

# build PRESET [TARGET...]: a progress line on a terminal; elsewhere only warnings, errors and the time.
build() {
  local preset=$1 start=$SECONDS target=()
  shift
  [ $# -eq 0 ] || target=(--target "$@")
  if [ -t 1 ]; then
    cmake --build --preset "$preset" --parallel "$jobs" "${target[@]}" || return 1
  else
    cmake --build --preset "$preset" --parallel "$jobs" "${target[@]}" >"build/$preset/build.log" 2>&1 ||
      { grep -vE '^\[[0-9]+/[0-9]+\] (Building|Linking|Embedding)' "build/$preset/build.log" | tail -n 60 >&2; return 1; }
    grep -E 'warning:' "build/$preset/build.log" | sort -u | head -n 20 || true
  fi
  echo "Built $preset in $((SECONDS - start)) s"
}

# A table of parts, for scripts that run them all even if one fails.
table=()
failures=0

# part NAME COMMAND...: runs it, and notes how it went.
part() {
  local name=$1 start=$SECONDS result=passed
  shift
  echo
  say "== $name"
  "$@" </dev/null || { result=FAILED; failures=$((failures + 1)); }
  table+=("$(printf '%-8s %5d s  %s' "$result" $((SECONDS - start)) "$name")")
}

# The last command of such a script.
print_table() {
  echo
  say "Summary"
  printf '%s\n' "${table[@]}"
  echo "Took $((SECONDS / 60)) min $((SECONDS % 60)) s"
  echo "$((${#table[@]} > 0 ? failures : 1)) parts failed"
  [ "$failures" -eq 0 ]
}

# summary PRESET: counts doctest's cases where a test is made of them, and the test itself where it is not.
# The last line is 'N passed, N failed'.
summary() {
  awk '
    /^[0-9]+\/[0-9]+ Test(ing)?: / { name = $3; cases = 0; bad = 0 }
    /^\[doctest\] test cases: / {
      gsub(/[|:]/, " ")
      for (i = 1; i < NF; ++i) {
        if ($(i + 1) == "passed") { passed += $i; cases += $i }
        if ($(i + 1) == "failed") { failed += $i; cases += $i; bad += $i }
      }
    }
    /^\[doctest\] assertions: / { assertions += $3 }
    /^Test Passed\./ { if (!cases) ++passed }
    /^Test Failed\.|^Test Timeout|^Test time exceeded|^Exception/ { if (!bad) ++failed; names = names " " name; bad = 1 }
    END {
      if (names) print "Failed:" names
      if (assertions) printf "%d assertions\n", assertions
      printf "%d passed, %d failed\n", passed, failed
    }' "build/$1/Testing/Temporary/LastTest.log"
}
