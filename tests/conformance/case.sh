#!/bin/bash
# case.sh SUITE DIR FILE CASE: runs one case over $RUNTIME, inside tests/isolate; its TAP goes to stdout.
set -eu
suite=$1 dir=$2 file=$3 name=$4
# Everything the suites write goes away with the namespace.
# The suites expect the five digits of a machine that has run for a while.
echo 20000 > /proc/sys/kernel/ns_last_pid
mkdir -p /run/tmp /run/work
chmod 755 /run/tmp /run/work
export TMPDIR=/run/tmp LANG=C.UTF-8 TERM=xterm PYTHONDONTWRITEBYTECODE=1
cd /run/work
# bats wants a regular expression.
# shellcheck disable=SC2016
exactly="^$(printf %s "$name" | sed 's/[][\.*^$+?(){}|/]/\\&/g')\$"
case $suite in
    crun)
        # Its tests are run from the build directory.
        mkdir tests
        cp "$dir/crun-init" tests/init
        export OCI_RUNTIME=$RUNTIME RUN_TESTS=$name
        exec python3 "$dir/crun/tests/$file" ;;
    runc)
        export RUNC=$RUNTIME
        cd "$dir/runc/tests/integration"
        exec bats -t -f "$exactly" "$file" ;;
    tools)
        cd "$dir/tools"
        exec "./$name" ;;
    podman)
        . "${0%/*}/podman.sh"
        cd "$dir/podman/test/system"
        exec bats -t -f "$exactly" "$file" ;;
esac
