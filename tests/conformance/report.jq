# Input: all results, one object a case and runtime. $reasons: [{suite, file, case, view?, reason}], `case` a regular expression.
# Output: {summary, differences, ahead, stale, unexplained}.
def ours: "fleet-nvidia";
def peers: map(select(.runtime != ours));
def reason($c):
    [$reasons[] | select(.suite == $c.suite and .file == $c.file and (.view // $c.view) == $c.view)
        | select(.case as $re | $c.case | test("^(" + $re + ")$"))][0].reason;

. as $all
| ($all | group_by([.suite, .view, .file, .case])
    | map({suite: .[0].suite, view: .[0].view, file: .[0].file, case: .[0].case,
           own: (map(select(.runtime == ours))[0]),
           by: (map({key: .runtime, value: .result}) | from_entries)})
    | map(select(.own != null))) as $cases
| ($cases | map(select(.own.result != "passed" and ([.by | to_entries[] | select(.key != ours and .value == "passed")] | length > 0)))
    | map(. + {reason: reason(.)})) as $differences
| {
    summary: ($all | group_by([.suite, .view, .runtime])
        | map({suite: .[0].suite, view: .[0].view, runtime: .[0].runtime,
               passed: map(select(.result == "passed")) | length,
               failed: map(select(.result == "failed")) | length,
               skipped: map(select(.result == "skipped")) | length})),
    differences: $differences,
    unexplained: ($differences | map(select(.reason == null))),
    ahead: ($cases | map(select(.own.result == "passed" and ([.by | to_entries[] | select(.key != ours and .value == "failed")] | length > 0)))),
    # A reason that no difference uses any more, of a suite that was run.
    stale: [$reasons[] | . as $r
        | select([$all[] | select(.suite == $r.suite and .runtime == ours and ($r.view // .view) == .view)] | length > 0)
        | select([$differences[] | select(.suite == $r.suite and .file == $r.file and ($r.view // .view) == .view)
            | select(.case | test("^(" + $r.case + ")$"))] | length == 0)]
}
