#!/bin/bash
# Prepares simulated nodes and runs the lifecycle benchmark inside tests/isolate. Argument: directory of the sim's programs.
set -eu
TOP=$(cd "$(dirname "$0")/.." && pwd)
cargo bench --locked -p fleet-tests --no-run
exec "$TOP/tests/isolate" --cgroup v1 bash -c '
set -eu
"$1/fleet-simulate" create --quiet --machine h100x8 --root /run/sim-8 --cdi /etc/cdi/nvidia.yaml
mkdir -p /run/bench-root && tar -C /run/bench-root -xf "$2/.state/images/glibc.tar"
export FLEET_CTL="$1/fleet-nvidia-ctl" FLEET_BENCH_CDI_8=nvidia.com/gpu=all FLEET_BENCH_CDI_2=nvidia.com/gpu=0,nvidia.com/gpu=1 BENCH_ROOTFS=/run/bench-root
cd "$2" && cargo bench --locked --offline -p fleet-tests
' bench "$1" "$TOP"
