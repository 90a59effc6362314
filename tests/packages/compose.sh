#!/bin/bash
# compose.sh STATE RUNTIME SIMULATE: podman-compose brings up a GPU service and one without, both by this runtime, on a simulated
# node. Runs inside tests/isolate.
set -euo pipefail
TOP=$(cd "$(dirname "$0")/../.." && pwd)
images=$1/images RUNTIME=$2 simulate=$3 STATE=/run/compose
. "$TOP/tests/setup/podman.sh"
# podman-compose passes no global option on: the runtime is this Podman's default.
sed -i 's/^\[engine\]/&\nruntime = "fleet-nvidia"/' "$CONTAINERS_CONF"
"$simulate/fleet-simulate" create --machine h100x2 --root /run/node --cdi /etc/cdi/nvidia.yaml >/dev/null
podman import -q "$images/glibc.tar" localhost/gpu >/dev/null 2>&1
mkdir -p /run/project
cat > /run/project/compose.yaml <<'C'
version: "3"
services:
  model:
    image: localhost/gpu
    devices: ["nvidia.com/gpu=1"]
    command: ["sh", "-c", "nvidia-smi -L > /shared/model; sleep 600"]
    volumes: ["/run/project:/shared"]
  cache:
    image: localhost/gpu
    command: ["sh", "-c", "ls /dev > /shared/cache; sleep 600"]
    volumes: ["/run/project:/shared"]
C
cd /run/project
podman-compose up -d > up.log 2>&1 || { cat up.log; exit 1; }
for _ in $(seq 100); do [ -s model ] && [ -s cache ] && break; sleep 0.1; done
running=$(podman ps --format '{{.Names}}' | grep -c '^project' || true)
[ "$running" = 2 ] || { cat up.log; echo "compose: $running services run, not 2" >&2; exit 1; }
[ "$(grep -c '^GPU' model)" = 1 ] || { cat model up.log; echo "compose: the GPU service has not one GPU" >&2; exit 1; }
! grep -q nvidia cache || { echo "compose: the service without a GPU has one" >&2; exit 1; }
[ "$(podman inspect --format '{{.OCIRuntime}}' "$(podman ps -q | head -n 1)")" = fleet-nvidia ]
podman-compose down -t 0 >/dev/null 2>&1
[ -z "$(podman ps -aq)" ] || { echo "compose: containers are left" >&2; exit 1; }
