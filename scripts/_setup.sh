# Read by the scripts here, which set $root, the repository, first.

# use_venv SET COMMAND...: becomes .venv/bin/python COMMAND, after setting .venv up for SET where that is to be done.
# SET is run (what the job itself needs), demo (run + the demo) or dev (demo + tests, lint, types).
use_venv() {
    files="pyproject.toml scripts/requirements.txt"
    case $1 in
    demo) files="$files scripts/requirements-demo.txt" ;;
    dev) files="$files scripts/requirements-demo.txt scripts/requirements-dev.txt" ;;
    esac
    # Every call comes by here, so this starts two small programs and no Python.
    if venv_is_ready "$1"; then
        shift
        exec "$root/.venv/bin/python" "$@"
    fi
    find_python || exit 2
    exec "$python" "$root/scripts/_setup.py" "${0##*/}" "$@"
}

# The stamp of a set, written when all of it is installed: where .venv lies, the Python it was made with, the checksums
# of the files it was made from. A .venv in the making has none, one that was moved or copied has another's, and one
# that is being added to is marked as unfinished.
venv_is_ready() { # SET
    stamp=$root/.venv/ready-$1
    [ -x "$root/.venv/bin/python" ] && [ -f "$stamp" ] && [ ! -e "$root/.venv/unfinished" ] || return 1
    # shellcheck disable=SC2086 # $files is a list
    sums=$(cd "$root" && cksum $files)
    case $(cat "$stamp") in
    # BEAM_DETECT_PYTHON matters where it is set; without it any Python that .venv was made with is right.
    "$root
"${BEAM_DETECT_PYTHON:-*}"
$sums") return 0 ;;
    esac
    return 1
}

# Sets $python to a supported one, or says what was found instead.
find_python() {
    found=
    for candidate in "${BEAM_DETECT_PYTHON:-python3.11}" python3.12 python3.13 python3 python; do
        # The range is that of requires-python in pyproject.toml.
        if version=$("$candidate" -c 'import sys
print("%d.%d.%d" % sys.version_info[:3])
sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null); then
            python=$candidate
            return 0
        fi
        [ -z "$version" ] || found="$found${found:+, }$candidate is $version"
        [ -z "${BEAM_DETECT_PYTHON:-}" ] || { found=${found:-$candidate, which does not run}; break; }
    done
    echo "${0##*/}: Python 3.11, 3.12 or 3.13 is needed; found: ${found:-no other}" \
        "(BEAM_DETECT_PYTHON=/path/to/python3.11 names one that is not on the PATH)" >&2
    return 1
}
