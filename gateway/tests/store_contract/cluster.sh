#!/bin/sh
# A throwaway Postgres for tests. Says its folder (which holds the socket) when it is ready; obeys the
# words stop, start and crash on its input; ends, with all that it made, when its input ends: so it
# cannot outlive the tests.
set -eu
dir=$(mktemp -d /tmp/fastchat-postgres.XXXXXX)
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
as=""
if [ "$(id -u)" = 0 ]; then # initdb refuses root
    chown postgres "$dir"
    as="setpriv --reuid=postgres --regid=postgres --clear-groups"
fi
trap '$as "$bin/pg_ctl" -D "$dir/data" stop -m immediate >/dev/null 2>&1 || true; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
start() {
    $as "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w start \
        -o "-k $dir -c listen_addresses= -c fsync=off -c max_connections=200" >/dev/null </dev/null
}
cd "$dir"
$as "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --no-locale --no-sync >/dev/null
start
echo "$dir"
while read -r word; do
    case $word in
        stop) $as "$bin/pg_ctl" -D "$dir/data" -w stop -m fast >/dev/null ;;
        crash) $as "$bin/pg_ctl" -D "$dir/data" -w stop -m immediate >/dev/null ;;
        start) start ;;
    esac
    echo done
done
