# Sourced by the other scripts: makes the virtual environment once and keeps it until pyproject.toml changes.
# THROUGHTIME_VENV names its folder (default: .venv beside pyproject.toml), PYTHON the interpreter.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${THROUGHTIME_VENV:-$root/.venv}
cd "$root"

# use_environment EXTRAS: after it, $venv/bin is first on PATH and throughtime[EXTRAS] is installed there.
use_environment() {
    local extras=$1 stamp wanted
    stamp=$venv/throughtime.stamp
    wanted=$(sha256sum pyproject.toml | cut -d ' ' -f 1)
    # An environment for the tests holds everything that the others need.
    if ! grep -qsxE "$wanted (test|$extras)" "$stamp"; then
        make_environment "$extras"
        echo "$wanted $extras" >"$stamp"
    fi
    export PATH=$venv/bin:$PATH
}

make_environment() {
    local python=${PYTHON:-python3}
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "throughtime needs Python 3.11 or later; $python is $("$python" --version). Set PYTHON." >&2
        return 1
    }
    echo "Installing throughtime[$1] into $venv; the first time this takes minutes."
    # The stamp goes first: an installation that was interrupted is never taken for a whole one.
    rm -f "$venv/throughtime.stamp"
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    with_clock "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$1]"
}

# with_clock COMMAND…: runs it and prints the time that has passed every 15 seconds.
with_clock() {
    local start=$SECONDS clock status=0
    while sleep 15; do echo "  … $((SECONDS - start)) s"; done &
    clock=$!
    "$@" || status=$?
    kill "$clock" 2>/dev/null || true
    wait "$clock" 2>/dev/null || true
    echo "  done in $((SECONDS - start)) s"
    return "$status"
}
