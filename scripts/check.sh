#!/usr/bin/env bash
# check.sh is the gate: what does not pass it is not merged. It stops at the first step that fails and names it.
#
#   scripts/check.sh          everything
#   scripts/check.sh --fast   without the race detector and without fuzzing
#
# Needs Go and git; the race detector also needs a C compiler. FUZZTIME (default 5s) is spent on every fuzz target.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly staticcheck_version=v0.8.2 # 2026.2.2
fuzztime=${FUZZTIME:-5s}
fast=
for arg; do
	case $arg in
	--fast) fast=1 ;;
	-h | --help)
		sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
		exit 0
		;;
	*)
		echo "check.sh: unknown argument $arg; it knows --fast" >&2
		exit 2
		;;
	esac
done

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# step NAME COMMAND… runs a command, shows what it said only if it fails, and how long it took.
step() {
	local name=$1 start=$SECONDS status=0
	shift
	printf '%-32s ' "$name"
	# Not the condition of an if: there a function would go on behind a command that failed.
	set +e
	(
		set -e
		"$@"
	) </dev/null >"$log" 2>&1
	status=$?
	set -e
	if [ "$status" -eq 0 ]; then
		printf 'ok   %4d s\n' $((SECONDS - start))
		return
	fi
	printf 'FAIL %4d s\n\n' $((SECONDS - start))
	tail -n 300 "$log"
	printf '\ncheck.sh: FAILED at step "%s" (exit %d)\n' "$name" "$status" >&2
	exit 1
}

formatted() {
	local files
	files=$(gofmt -l .)
	[ -z "$files" ] || {
		printf 'not formatted; run gofmt -w on:\n%s\n' "$files"
		return 1
	}
}

run_staticcheck() {
	local tool
	tool=$(command -v staticcheck || echo "$(go env GOPATH)/bin/staticcheck")
	if [ -x "$tool" ] && "$tool" -version | grep -qF "(${staticcheck_version#v})"; then
		"$tool" ./...
	else
		go run "honnef.co/go/tools/cmd/staticcheck@$staticcheck_version" ./...
	fi
}

race_tests() {
	command -v "$(go env CC)" >/dev/null || {
		echo "the race detector needs a C compiler ($(go env CC)): install one (Debian: gcc and libc6-dev), or run with --fast"
		return 1
	}
	CGO_ENABLED=1 go test -race -timeout 15m ./...
}

fuzz_targets() { # lines of "directory target"
	git ls-files --cached --others --exclude-standard -- '*_test.go' | while read -r file; do
		[ -f "$file" ] || continue
		sed -nE "s#^func (Fuzz[A-Za-z0-9_]*)\(.*#./$(dirname "$file") \1#p" "$file"
	done | sort -u
}

# When its time is over in an unlucky moment the fuzzer of Go calls that a failure of the target: "context deadline exceeded", without an
# input that fails. That is tried again; a real failure names its input.
fuzz() {
	local out
	for _ in 1 2 3; do
		if out=$(go test -run '^$' -fuzz "^$1\$" -fuzztime "$fuzztime" -fuzzminimizetime 10x "$2" 2>&1); then
			return 0
		fi
		printf '%s\n' "$out"
		if grep -q 'Failing input' <<<"$out" || ! grep -q 'context deadline exceeded' <<<"$out"; then
			return 1
		fi
	done
	return 1
}

# The time-out of go test does not count while benchmarks run, and one that hangs must not hang the gate.
benchmarks() {
	local bound=()
	command -v timeout >/dev/null && bound=(timeout --kill-after=10 300)
	${bound[@]+"${bound[@]}"} go test -run '^$' -bench . -benchtime 1x ./...
}

cross_build() { CGO_ENABLED=0 GOOS=$1 GOARCH=$2 go build -o /dev/null ./...; }

# Vet type-checks the tests as well, which a build for the other system leaves out.
cross_vet() { CGO_ENABLED=0 GOOS=$1 GOARCH=$2 go vet ./...; }

# The harness is a module of its own, so that what it needs never reaches users' builds. Its tests of real brokers take minutes and are run by
# whoever changes it; these are its judgements, and the brokers' life and death.
harness() {
	cd scripts/harness
	go vet ./...
	run_staticcheck
	go test ./interop/... ./bench/... ./clients/...
	go test ./brokers -run 'Missing|Close|Orphans|TestFaults/paired'
}

tree() { git status --porcelain; }

unchanged() {
	[ "$(tree)" = "$before" ] || {
		echo "the run changed the working tree:"
		diff <(echo "$before") <(tree)
		return 1
	}
}

before=$(tree)
step gofmt formatted
step "go vet" go vet ./...
step "staticcheck $staticcheck_version" run_staticcheck
if [ -n "$fast" ]; then
	step "tests" go test -timeout 10m ./...
else
	step "tests, race detector" race_tests
	targets=$(fuzz_targets)
	while read -r dir target; do
		[ -z "$target" ] || step "fuzz $target $fuzztime" fuzz "$target" "$dir"
	done <<<"$targets"
fi
step "benchmarks, once each" benchmarks
step "harness" harness
for os in linux darwin; do
	for arch in amd64 arm64; do
		step "build $os/$arch" cross_build $os $arch
	done
done
step "vet darwin/arm64" cross_vet darwin arm64
step "clean tree" unchanged
printf '\ncheck.sh: all passed in %d s\n' $SECONDS
