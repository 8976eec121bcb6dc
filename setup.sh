#!/usr/bin/env bash
# Brings a bare Debian/Ubuntu machine to where `make demo` (setup.sh demo) or `make test` (setup.sh test) can run.
# Installs into .venv; as root on Debian also the apt packages that it names. Says each step; quick the second time.
set -euo pipefail
cd "$(dirname "$0")"
goal=${1:-demo}

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
stop() { printf 'setup: %s\n' "$*" >&2; exit 3; }

# apt_install WHY PACKAGE...: installs as root on Debian, otherwise prints the one line that a person must run.
apt_install() {
    local why=$1; shift
    command -v apt-get >/dev/null || stop "$why: install $* with your system's package manager, then run this again"
    [ "$(id -u)" = 0 ] || stop "$why; run: sudo apt-get install -y $*"
    say "$why: apt-get install $*"
    if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    fi
}

# ---- Python ----------------------------------------------------------------------------------------------------------
find_python() {
    local name
    for name in ${PYTHON:-} python3.12 python3.11 python3; do
        if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            command -v "$name"; return
        fi
    done
    return 1
}
if [ ! -x .venv/bin/python ]; then
    python=$(find_python) || { apt_install "Python 3.11 or 3.12 is needed" python3 python3-venv; python=$(find_python) || stop "no Python 3.11 or 3.12 found: set PYTHON=/path/to/python"; }
    say "virtual environment .venv ($("$python" --version))"
    "$python" -c 'import ensurepip' 2>/dev/null || apt_install "this Python lacks venv" "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    "$python" -m venv .venv
fi
command -v git >/dev/null || apt_install "git is needed: the champion is a git branch" git

# ---- a container engine ----------------------------------------------------------------------------------------------
docker_answers() { command -v docker >/dev/null && timeout 10 docker info >/dev/null 2>&1; }
if [ "$goal" = test ]; then
    command -v dockerd >/dev/null || apt_install "the tests start their own Docker daemon" docker.io
    command -v runsc >/dev/null || apt_install "the sandbox is tested under gVisor too" runsc
    command -v redis-server >/dev/null || apt_install "the ledger is tested against a second Redis version" redis-server
fi
if ! docker_answers && ! command -v runc >/dev/null; then
    apt_install "no Docker daemon answers, so experiments run under runc" runc
fi
if ! docker_answers && [ "$(id -u)" != 0 ]; then
    stop "runc needs root here; run as root, or start Docker and let this user reach it: sudo usermod -aG docker $(id -un)"
fi

# ---- packages --------------------------------------------------------------------------------------------------------
pip() { .venv/bin/python -m pip --disable-pip-version-check --quiet "$@" 2> >(grep -v '^WARNING' >&2); }

# On a machine without a GPU the CUDA build of torch would cost gigabytes for nothing. A pip that already resolves to a
# CPU build (a mirror, a wheel directory) is used as it is; otherwise uv knows where the CPU builds are.
install_torch() {
    local torch plan
    torch=$(grep '^torch==' requirements.txt)
    if .venv/bin/python -c "import importlib.metadata as m, sys; sys.exit(m.version('torch').split('+')[0] != '${torch#torch==}')" 2>/dev/null; then return; fi
    if nvidia-smi -L >/dev/null 2>&1; then
        say "torch (CUDA build, a few GB)"; pip install "$torch"; return
    fi
    plan=$(mktemp)
    pip install --dry-run --report "$plan" "$torch"
    if grep -Eq '"name": *"(nvidia|triton)' "$plan"; then
        say "torch (CPU build, by uv)"
        pip install 'uv>=0.6,<1'
        .venv/bin/uv pip install --quiet --python .venv/bin/python --torch-backend=cpu "$torch" ||
            stop "no CPU build of $torch could be reached; to accept the CUDA build (several GB): .venv/bin/pip install $torch && make $goal"
    else
        say "torch (CPU build)"; pip install "$torch"
    fi
    rm -f "$plan"
}
requirements=requirements.txt
[ "$goal" = test ] && requirements=requirements-dev.txt
stamp=.venv/.installed-$goal
wanted=$(cat "$requirements" requirements.txt requirements-hopper.txt pyproject.toml | sha256sum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    install_torch
    say "packages of $requirements (a minute or two the first time)"
    pip install -r "$requirements"
    pip install --no-deps --no-build-isolation -e .
    if nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | grep -q '^9\.'; then
        say "kernels for a Hopper GPU (400 MB)"
        pip install -r requirements-hopper.txt
    fi
    printf '%s' "$wanted" >"$stamp"
fi
