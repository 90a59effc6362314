# Input: all results, one object a case and runtime; `release` is the one of Debian that a suite is from, empty for the installed one.
# $reasons: [{suite, file, case, view?, release?, reason}], `case` and `release` regular expressions. $versions: what a suite's own version
# is, by `RELEASE-SUITE`.
# Output: {summary, differences, ahead, stale, unexplained}.
def ours: "fleet-nvidia";
def peers: map(select(.runtime != ours));
def covers($c):
    .suite == $c.suite and .file == $c.file and (.view // $c.view) == $c.view
    and (.release as $re | $re == null or ($c.release | test("^(" + $re + ")$")))
    and (.case as $re | $c.case | test("^(" + $re + ")$"));
def reason($c): [$reasons[] | select(covers($c))][0].reason;
def version: $versions[(.release | if . == "" then "" else . + "-" end) + .suite] // "";

map(. + {release: (.release // "")}) | map(. + {of: ([.suite, version] | map(select(. != "")) | join(" "))})
| . as $all
| ($all | group_by([.suite, .release, .view, .file, .case])
    | map({suite: .[0].suite, release: .[0].release, of: .[0].of, view: .[0].view, file: .[0].file, case: .[0].case,
           own: (map(select(.runtime == ours))[0]),
           by: (map({key: .runtime, value: .result}) | from_entries)})
    | map(select(.own != null))) as $cases
| ($cases | map(select(.own.result != "passed" and ([.by | to_entries[] | select(.key != ours and .value == "passed")] | length > 0)))
    | map(. + {reason: reason(.)})) as $differences
| {
    summary: ($all | group_by([.suite, .release, .view, .runtime])
        | map({of: .[0].of, view: .[0].view, runtime: .[0].runtime,
               passed: map(select(.result == "passed")) | length,
               failed: map(select(.result == "failed")) | length,
               skipped: map(select(.result == "skipped")) | length})),
    differences: $differences,
    unexplained: ($differences | map(select(.reason == null))),
    ahead: ($cases | map(select(.own.result == "passed" and ([.by | to_entries[] | select(.key != ours and .value == "failed")] | length > 0)))),
    # A reason that no difference uses any more, of a suite that was run.
    stale: [$reasons[] | . as $r
        | select([$all[] | select(.suite == $r.suite and .runtime == ours and ($r.view // .view) == .view)] | length > 0)
        | select([$differences[] | . as $c | select($r | covers($c))] | length == 0)]
}
