# CycloneDX 1.5 from `cargo metadata`, limited to what is linked. Times and order come from the source alone.
def lines: split("\n") | map(select(. != ""));
def expression: (. // "NOASSERTION") | gsub(" */ *"; " OR ");
# What comes from no registry is our own, whatever it stands in for: known faults of that one are not its.
def reference: if .source then "pkg:cargo/\(.name)@\(.version)" else "pkg:generic/fleet-nvidia/\(.name)@\(.version)" end;

($linked | lines | map(split(" ") | {key: "\(.[0]) \(.[1])", value: true}) | from_entries) as $used
| ($checksums | lines | map(split(" ") | {key: "\(.[0]) \(.[1])", value: .[2]}) | from_entries) as $sums
| $metadata[0] as $all
| [$all.packages[] | select($used["\(.name) \(.version)"])] as $packages
| ($packages | map({key: .id, value: reference}) | from_entries) as $references
| ($system | lines | map(split("|") | {
    type: "library", "bom-ref": "pkg:generic/\(.[0])@\(.[1])", name: .[0], version: .[1],
    purl: "pkg:generic/\(.[0])@\(.[1] | @uri)", licenses: [{expression: .[2]}]
  })) as $libraries
| {
    bomFormat: "CycloneDX",
    specVersion: "1.5",
    version: 1,
    metadata: {
      timestamp: $time,
      component: {type: "application", "bom-ref": "fleet-nvidia", name: "fleet-nvidia", version: $version, licenses: [{expression: "Apache-2.0"}]}
    },
    components: (
      ($packages | sort_by(.name, .version) | map({
        type: "library", "bom-ref": reference, name, version, purl: reference, licenses: [{expression: (.license | expression)}]
      } + (if $sums["\(.name) \(.version)"] then {hashes: [{alg: "SHA-256", content: $sums["\(.name) \(.version)"]}]} else {} end)))
      + $libraries
    ),
    dependencies: (
      [{ref: "fleet-nvidia", dependsOn: (["fleet-nvidia", "fleet-nvidia-ctl"] | map("pkg:generic/fleet-nvidia/\(.)@\($version)"))}]
      + ([$all.resolve.nodes[] | select($references[.id]) | {
          ref: $references[.id],
          dependsOn: ([.deps[] | select(any(.dep_kinds[]; .kind == null)) | $references[.pkg] | select(.)] | unique)
        }] | sort_by(.ref))
      + ($libraries | map({ref: ."bom-ref", dependsOn: []}))
    )
  }
