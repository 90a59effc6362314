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
    runc) cd "$dir/runc/tests/integration" ;;&
    podman) cd "$dir/podman/test/system" ;;&
    runc | podman)
        for file in *.bats; do
            sed -n "s/^@test \(['\"]\)\(.*\)\1 *{.*/$file\t\2/p" "$file"
        done ;;
esac
