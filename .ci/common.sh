# What the scripts beside it share; they source it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python_of() {  # the interpreter of a version, from PATH or from pyenv
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        if "$candidate" -c "import sys; sys.exit(sys.version_info[:2] != (3, ${1#3.}))" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

environment() {  # puts $folder/NAME first on PATH, made with a Python; 1 where there is none
    local python
    if [ -d "$folder/$1" ]; then
        source "$folder/$1/bin/activate"
        return
    fi
    python=$(python_of "$2")
    if [ -z "$python" ]; then
        echo "no Python $2 on this machine: $1 is not run"
        return 1
    fi
    "$python" -m venv "$folder/$1"
    source "$folder/$1/bin/activate"
}

install() {
    pip install -q "$@"
}

part() {  # runs a part in a subshell, and says how long it took
    local start=$SECONDS
    echo "== $1"
    ("$@")
    echo "== $1: $((SECONDS - start)) s"
}
