# What backup and restore know of stores. Sourced.

# kind_of STORE: sets kind; and path for SQLite, or what libpq reads for Postgres. A password comes by the
# environment, so that it is in no argument.
kind_of() {
  local url=$1 rest login
  if [ -f "$url" ] && head -c 20 "$url" | grep -qE '^postgres(ql)?://'; then url=$(<"$url"); fi
  case $url in
    postgres://*|postgresql://*)
      kind=postgres
      rest=${url#*://}
      login=${rest%@*}
      [ "$login" != "$rest" ] || die "the URL names no user"
      rest=${rest##*@}
      case $login in *:*) export PGPASSWORD=${login#*:} ;; esac
      export PGUSER=${login%%:*} PGDATABASE=${rest#*/}
      PGDATABASE=${PGDATABASE%%\?*}
      rest=${rest%%/*}
      export PGHOST=${rest%:*}
      case $rest in *:*) export PGPORT=${rest##*:} ;; esac
      PATH="$PATH:$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)"
      ;;
    *) kind=sqlite path=${url#sqlite:} ;;
  esac
}
