# Sourced by the scripts beside it: messages, and where things are.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1

say() { printf '\n== %s\n' "$*"; }
fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# The folder that cargo builds into, wherever the environment or a configuration file puts it.
target_dir() {
    cargo metadata --locked --no-deps --format-version 1 | sed -E 's/.*"target_directory":"([^"]+)".*/\1/'
}

# The folder of PostgreSQL's programs: PG_BIN, or the newest of Debian's packages. Fails when there is none.
postgres_bin() {
    local dir
    if [[ -n ${PG_BIN:-} ]]; then
        dir=$PG_BIN
    else
        dir=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort --version-sort | tail -n 1)
    fi
    [[ -x $dir/postgres && -x $dir/initdb && -x $dir/pg_basebackup ]] && printf '%s\n' "$dir"
}
