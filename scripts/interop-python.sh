#!/usr/bin/env bash
# interop-python.sh runs an existing client library in another language, Debian's python3-stomp, unchanged against this program: direct to a
# broker, and through a sidecar whose brokers are killed. Everything listens on free ports of the loopback interface.
#
#   scripts/interop-python.sh [--messages N]
#
# Where python3-stomp is not installed it says so and is skipped, unless CI=true, where that is a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=/usr/bin/python3 # Debian's own, which has Debian's packages
if ! "$python" -c 'import stomp' 2>/dev/null; then
	reason="python3-stomp is not installed for $python (Debian: apt-get install python3-stomp)"
	if [ "${CI:-}" = true ]; then
		echo "interop-python.sh: FAILED: $reason" >&2
		exit 1
	fi
	echo "interop-python.sh: skipped: $reason"
	exit 0
fi

bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go build -o "$bin/understudy" ./cmd/understudy
echo "stomp.py $("$python" -c 'import stomp; print(*stomp.__version__, sep=".")')"
PYTHONDONTWRITEBYTECODE=1 timeout --kill-after=30 270 "$python" scripts/interop_python.py "$bin/understudy" "$@"
