#!/bin/bash
# cases.sh SUITE DIR: lists a suite's cases, `FILE<tab>CASE` a line.
set -eu
suite=$1 dir=$2
case $suite in
    crun)
        cd "$dir/crun/tests"
        for file in test_*.py; do
            python3 -c 'import sys; sys.path.insert(0, "."); sys.dont_write_bytecode = True
module = __import__(sys.argv[1][:-3])
for name in module.all_tests: print(sys.argv[1], name, sep="\t")' "$file" | grep '^test_' || true
        done ;;
    tools)
        cd "$dir/tools"
        find . -maxdepth 1 -type f -executable ! -name runtimetest -printf 'validation\t%f\n' | sort ;;
    runc) cd "$dir/runc/tests/integration" ;;&
    podman) cd "$dir/podman/test/system" ;;&
    runc | podman)
        # Of Podman's, the files whose subject is containers: images, networks and builds do not reach the runtime.
        only='*.bats'
        [ "$suite" = runc ] || only='030-run.bats 032-*.bats 045-*.bats 050-*.bats 055-*.bats 075-*.bats 080-*.bats 130-*.bats 170-*.bats 190-*.bats 200-*.bats 260-*.bats 280-*.bats 420-*.bats 450-*.bats'
        for file in $only; do
            sed -n "s/^@test \(['\"]\)\(.*\)\1 *{.*/$file\t\2/p" "$file"
        done ;;
esac
