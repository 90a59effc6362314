#!/bin/bash
# Runs the benchmarks and writes docs/benchmarks.md with its pictures; with another build than release, into .state/bench.
# Arguments: directory of the simulation's programs, cargo profile.
set -eu
TOP=$(cd "$(dirname "$0")/.." && pwd)
tools=$1 profile=$2
out=$TOP/.state/bench
mkdir -p "$out"
doc=$out
[ "$profile" != release ] || doc=$TOP/docs
cd "$TOP"
cargo bench --locked --profile "$profile" -p fleet-cdi -p fleet-tests --bench scale --bench discover --bench lifecycle --no-run
cargo bench --locked --profile "$profile" -p fleet-cdi --bench scale > "$out/scale.md"
exec "$TOP/tests/isolate" --cgroup v1 bash -c '
set -eu
"$1/fleet-simulate" create --quiet --machine h100x8 --root /run/sim-8 --cdi /etc/cdi/nvidia.yaml
mkdir -p /run/bench-root && tar -C /run/bench-root -xf "$2/.state/images/glibc.tar"
export FLEET_CTL="$1/fleet-nvidia-ctl" FLEET_BENCH_CDI_8=nvidia.com/gpu=all FLEET_BENCH_CDI_2=nvidia.com/gpu=0,nvidia.com/gpu=1
export BENCH_ROOTFS=/run/bench-root FLEET_BENCH_PARTS=$3 FLEET_BENCH_DOC=$4 FLEET_BENCH_PROFILE=$5
bench="cargo bench --locked --offline --profile $5 -p fleet-tests --bench"
$bench discover > "$3/discover.md"
$bench lifecycle
echo "written: $4/benchmarks.md"
' bench "$tools" "$TOP" "$out" "$doc" "$profile"
