# shellcheck shell=bash
# Shared by the scripts beside it: sourced, never run. The caller sets `name`, which begins what is said.
#
# Nothing here ends a process that was not started here, and servers listen on 127.0.0.1 only.

# Debian keeps servers out of an ordinary user's PATH.
PATH="$PATH:/usr/sbin:${CARGO_HOME:-$HOME/.cargo}/bin"

say() { printf '\033[1m%s:\033[0m %s\n' "$name" "$*" >&2; }
die() { say "$*"; exit 1; }

postgres_programs() {
  local folder
  folder=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
  if [ -x "$folder/initdb" ]; then echo "$folder"; else dirname "$(command -v initdb)" 2>/dev/null; fi
}

# Installs Debian packages whose program is missing: install_lacking PROGRAM=PACKAGE...
# The program `postgres` is looked for where Debian keeps it; what begins with a slash is a path, with stars.
install_lacking() {
  local pair lacking=() as_root=()
  for pair; do
    case $pair in
      postgres=*) [ -n "$(postgres_programs || true)" ] || lacking+=("${pair#*=}") ;;
      /*) compgen -G "${pair%%=*}" >/dev/null || lacking+=("${pair#*=}") ;;
      *) command -v "${pair%%=*}" >/dev/null || lacking+=("${pair#*=}") ;;
    esac
  done
  if [ ${#lacking[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || die "please install: ${lacking[*]}"
    if [ "$(id -u)" != 0 ]; then
      command -v sudo >/dev/null || die "please install as root: apt-get install ${lacking[*]}"
      as_root=(sudo)
    fi
    say "installing ${lacking[*]}"
    "${as_root[@]}" apt-get update -qq >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${lacking[@]}" >&2
  fi
  command -v cargo >/dev/null || [ -n "${FASTCHAT_BIN_DIR:-}" ] || die "please install Rust: https://rustup.rs"
}

# Postgres refuses to run as root. A prefix, not a function: a background job's id is then Postgres's.
as_postgres=()
[ "$(id -u)" != 0 ] || as_postgres=(setpriv --reuid=postgres --regid=postgres --init-groups)

# Whether somebody answers on a port of this machine.
answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# A port on which nobody answers, and not the one that is named: free_port [OTHER]. Somebody may take it before
# we do. Below those that connections are given (32768 on), and below those of tests/src/servers/ports.rs.
free_port() {
  local port
  while :; do
    port=$((12000 + RANDOM % 8000))
    [ "$port" = "${1:-}" ] || answers "$port" || { echo "$port"; return; }
  done
}

# Waits until a command succeeds, while a process is there: wait_for PID COMMAND...
wait_for() {
  local pid=$1 tries
  shift
  for ((tries = 0; tries < 300; tries++)); do
    "$@" >/dev/null 2>&1 && return 0
    kill -0 "$pid" 2>/dev/null || return 1
    sleep 0.1
  done
  return 1
}
