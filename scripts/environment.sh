# Sourced by the other scripts: makes the virtual environment once and keeps it until pyproject.toml changes.
# THROUGHTIME_VENV names its folder (default: .venv beside pyproject.toml), PYTHON the interpreter. Keras 2
# lives with TensorFlow 2.15 in an environment of its own, the same name with -keras2 after it;
# what builds the site in one with -docs.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${THROUGHTIME_VENV:-$root/.venv}
cd "$root"

# use_environment EXTRAS: after it, $venv/bin is first on PATH and throughtime[EXTRAS] is installed there.
use_environment() {
    local extras=$1
    # An environment for the tests holds everything that the others need.
    if ! is_made "$venv" "(test|$extras)"; then
        make_environment "${PYTHON:-python3}" "$venv" "$extras"
    fi
    export PATH=$venv/bin:$PATH
}

# use_keras2: after it, THROUGHTIME_KERAS2 is the interpreter of an environment with Keras 2; it stays unset
# where there is no Python 3.11, the last that TensorFlow 2.15 runs on.
use_keras2() {
    local folder=$venv-keras2 python
    for python in "${PYTHON:-python3}" python3.11; do
        if "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            is_made "$folder" keras2 || make_environment "$python" "$folder" keras2
            export THROUGHTIME_KERAS2=$folder/bin/python
            return
        fi
    done
}

# use_chromium: pages are tested in a browser; without one, and without Debian's package, those tests are skipped.
use_chromium() {
    local name
    for name in chromium chromium-browser google-chrome; do
        if command -v "$name" >/dev/null; then return; fi
    done
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        echo "Installing Chromium, for the tests of pages."
        { apt-get update -qq && apt-get install -y -qq chromium; } >/dev/null 2>&1 || true
    fi
}

# is_made FOLDER EXTRAS: whether it was made for this pyproject.toml and for these extras, a pattern.
is_made() {
    grep -qsxE "$(sha256sum pyproject.toml | cut -d ' ' -f 1) $2" "$1/throughtime.stamp"
}

# make_environment PYTHON FOLDER EXTRAS
make_environment() {
    local python=$1 folder=$2 extras=$3 stamp=$2/throughtime.stamp
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "throughtime needs Python 3.11 or later; $python is $("$python" --version). Set PYTHON." >&2
        return 1
    }
    echo "Installing throughtime[$extras] into $folder; the first time this takes minutes."
    # The stamp goes first: an installation that was interrupted is never taken for a whole one.
    rm -f "$stamp"
    [ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
    with_clock "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --editable ".[$extras]"
    echo "$(sha256sum pyproject.toml | cut -d ' ' -f 1) $extras" >"$stamp"
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
