#!/bin/bash
# The main job, end to end: a GPU container under Podman. Runs inside tests/isolate; leaves nothing but .state/.
set -eu
TOP=$(cd "$(dirname "$0")/.." && pwd)
RUNTIME=$1 PROGRAMS=$2 STATE=$TOP/.state/demo
. "$TOP/tests/setup/podman.sh"
if [ -e /proc/driver/nvidia/version ]; then
    echo "this machine has an NVIDIA driver: its GPUs are used"
    grep -qs '^ *"\?kind"\?: *"\?nvidia.com/gpu' /etc/cdi/* /run/cdi/* || {
        echo "no CDI spec of nvidia.com/gpu in /etc/cdi or /run/cdi; hint: fleet-nvidia-ctl cdi generate --output /etc/cdi/nvidia.yaml" >&2
        exit 1
    }
else
    echo "no NVIDIA driver here: a node with two H100 is simulated"
    "$PROGRAMS/fleet-simulate" create --quiet --machine h100x2 --root "$TOP/.state/node" --cdi /etc/cdi/nvidia.yaml
fi
podman image exists fleet-demo || podman import -q "$TOP/.state/images/glibc.tar" fleet-demo >/dev/null
set -x
podman --runtime fleet-nvidia run --rm --device nvidia.com/gpu=all fleet-demo nvidia-smi
