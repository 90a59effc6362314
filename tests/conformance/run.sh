#!/bin/bash
# Runs the suites of crun, runc, runtime-tools and Podman over this project's runtime and over both of them, each case in an isolated run of its own,
# and reports. What was passed is in RESULTS, one JSON object a case.
#   run.sh DIR SUITES RUNTIMES VIEWS [FILTER]
#     SUITES    crun, runc, podman, tools
#     RUNTIMES  paths of binaries, separated by blanks
#     VIEWS     v1, v2: the cgroup hierarchies that the tests see
#     FILTER    regular expression; only cases `FILE CASE` that match it are run, in place of their earlier results
# RELEASE in the environment: the suites of that release of Debian (release.sh), over this project's runtime and the peer
# that a suite belongs to.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
here=$top/tests/conformance
dir=$(cd "$1" && pwd) suites=$2 runtimes=$3 views=$4 filter=${5:-.}
limit=${LIMIT:-60}
release=${RELEASE:-}
sources=$dir${release:+/$release}
results=$dir/results
mkdir -p "$results/logs"
# Input that neither comes nor ends: at the end of its own, script(1) sends a NUL to the terminal, which echoes it.
[ -p "$results/silence" ] || mkfifo "$results/silence"
exec 7<> "$results/silence"

# verdict LOG: the result of the one case in a TAP log.
verdict() {
    tr -d '\r' < "$1" | awk '
        /^not ok / { result = "failed" }
        /^ok / && !result { result = ($0 ~ /#[ ]?[Ss][Kk][Ii][Pp]/) ? "skipped" : "passed"
            if (match($0, /# skip /)) note = substr($0, RSTART + 7) }
        END { print (result ? result : "failed") "\t" note }'
}

one() {
    local suite=$1 view=$2 runtime=$3 file=$4 name=$5 log code=0
    log=$results/logs/${release:+$release-}$suite-$view-${runtime##*/}-$(printf '%s %s' "$file" "$name" | tr -c 'A-Za-z0-9.\n-' _ | cut -c 1-120)
    # A terminal, since some cases want one. The pseudo terminal's own end must not be the caller's.
    RUNTIME=$runtime "$top/tests/isolate" --cgroup "$view" "$here/confined" timeout --kill-after 5 "$limit" \
        script -qec "$(printf '%q ' "$here/case.sh" "$suite" "$sources" "$file" "$name")" /dev/null <&7 7>&- > "$log" 2>&1 || code=$?
    [ "$code" != 124 ] && [ "$code" != 137 ] || printf '\nnot ok 1 %s\n# no end after %s s\n' "$name" "$limit" >> "$log"
    verdict "$log" | jq -cR --arg release "$release" --arg suite "$suite" --arg view "$view" --arg runtime "${runtime##*/}" --arg file "$file" --arg case "$name" \
        'split("\t") | {release: $release, suite: $suite, view: $view, runtime: $runtime, file: $file, case: $case, result: .[0]} + (if .[1] != "" then {note: .[1]} else {} end)'
}

for suite in $suites; do
    cases=$results/${release:+$release-}$suite.cases
    # In one step: another run may be reading it.
    "$here/cases.sh" "$suite" "$sources" > "$cases.$$"
    mv "$cases.$$" "$cases"
    for view in $views; do
        for runtime in $runtimes; do
            # runc has neither --cgroup-manager nor --config, with which crun's suite begins every call.
            [ "$suite-${runtime##*/}" != crun-runc ] || continue
            name=${runtime##*/}
            [ -z "$release" ] || [ "$name" = "$suite" ] || { [ "$name" != crun ] && [ "$name" != runc ]; } || continue
            # The engine wants controllers that the cgroup2 part of a hybrid machine lacks.
            [ "$suite-$view" != podman-v2 ] || [ ! -d /sys/fs/cgroup/unified ] || continue
            out=$results/${release:+$release-}$suite-$view-$name.json
            [ "$filter" != . ] || : > "$out.new"
            while IFS=$'\t' read -r file case; do
                [[ "$file $case" =~ $filter ]] || continue
                line=$(one "$suite" "$view" "$runtime" "$file" "$case")
                jq -r '"\(.result)\t\(.runtime) \(.view) \(.release) \(.suite) \(.file): \(.case)"' <<< "$line"
                if [ "$filter" = . ]; then
                    echo "$line" >> "$out.new"
                elif [ -f "$out" ]; then
                    # A case that is run again takes the place of its earlier result.
                    jq -c --argjson new "$line" 'if .file == $new.file and .case == $new.case then $new else . end' "$out" > "$out.new"
                    mv "$out.new" "$out"
                fi
            done < "$cases"
            [ "$filter" != . ] || mv "$out.new" "$out"
        done
    done
done
