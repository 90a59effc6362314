#!/bin/bash
# Inside the virtual machine, as root: cases.sh setup|before|after|v1 [CASE…]; node.sh and v1.sh hold more of them. Each
# case is a function that fails by its exit status; the default runtime of every command is the one under test, the cgroup
# manager is Podman's default, systemd.
set -u
here=/opt/fleet
# Podman 5 says with every call that cgroup v1 is on its way out.
export PODMAN_IGNORE_CGROUPSV1_WARNING=1
run_dir=/run/fleet-cases
# Programs are run from here, which /run does not allow.
bundles=/var/lib/fleet-cases
pod() { podman --runtime "${FLEET_VM_RUNTIME:-fleet-nvidia}" "$@"; }
ann() { (cd / && runuser -u ann -- env -i PATH="$PATH" XDG_RUNTIME_DIR=/run/user/1000 HOME=/home/ann USER=ann "$@"); }
apod() { ann podman --runtime fleet-nvidia "$@"; }
unit_of() { echo "libpod-$(podman inspect --format '{{.Id}}' "$1").scope"; }
prop() { systemctl show --value -p "$2" "$1"; }
cgroup_of() { echo "/sys/fs/cgroup$(prop "$1" ControlGroup)"; }
die() { echo "$*" >&2; exit 1; }
skip() { echo "$*" > "$run_dir/skip"; exit 77; }
same() { [ "$1" = "$2" ] || die "${3:-value} is \"$1\", not \"$2\""; }
has() { case $1 in *"$2"*) ;; *) die "\"$2\" is not in \"$1\"" ;; esac; }
# Software emulation on a busy machine is slow by a factor that nobody knows.
until_ok() { local end=$((SECONDS + 300)); while [ $SECONDS -lt $end ]; do "$@" >/dev/null 2>&1 && return; sleep 0.5; done; die "waited in vain for: $*"; }
# With the right to make nodes, so that nothing but the device rules is in the way.
GPU0=(--cap-add MKNOD --device nvidia.com/gpu=0)
SLEEP=(fleet-glibc sleep 1000)

setup() {
    mkdir -p "$run_dir" /etc/systemd/{system,user}.conf.d
    # At boot, on a busy machine, the 90 seconds of systemd end a unit that would have come up.
    printf '[Manager]\nDefaultTimeoutStartSec=900\nDefaultTimeoutStopSec=300\n' | tee /etc/systemd/{system,user}.conf.d/slow.conf >/dev/null
    systemctl daemon-reexec
    # As an admin would: the package, and Podman told.
    if ! cmp -s $here/fleet-nvidia.deb /opt/installed.deb; then
        dpkg -i $here/fleet-nvidia.deb >/dev/null
        cp $here/fleet-nvidia.deb /opt/installed.deb
    fi
    fleet-nvidia-ctl configure podman
    # What node.sh makes of the node stays.
    [ ! -e /opt/driver.files ] || return 0
    "$here/fleet-simulate" create --machine h100x2 --root /opt/node --cdi /etc/cdi/nvidia.yaml
    chmod 755 /opt/node
    # Where a driver's are, at every boot: rootless containers bind them from there.
    local node
    for node in /opt/node/dev/nvidia*; do
        stat -c "c+ /dev/$(basename "$node") 0666 root root - %Hr:%Lr" "$node"
    done > /etc/tmpfiles.d/nodes.conf
    systemd-tmpfiles --create /etc/tmpfiles.d/nodes.conf
    for image in busybox glibc; do
        podman image exists fleet-$image || podman import -q $here/$image.tar fleet-$image >/dev/null
        apod image exists fleet-$image || ann podman import -q $here/$image.tar fleet-$image >/dev/null
    done
}

# A second GPU's node, made by a container that was not given it.
other_gpu() {
    local numbers
    numbers=$(stat -c '%Hr %Lr' /dev/nvidia1)
    echo "rm -f /dev/other; mknod /dev/other c $numbers && (cat </dev/other) 2>&1 | grep -o 'not permitted'"
}
opens_own() { same "$(podman exec "$1" sh -c 'true </dev/nvidia0 && echo own')" own "GPU 0 of $1"; }
refused_other() { same "$(podman exec "$1" sh -c "$(other_gpu)")" "not permitted" "GPU 1 of $1"; }
isolated() { opens_own "$1"; refused_other "$1"; }
start() { pod run -d --name "$@" >/dev/null; }
remove_others() {
    # All but what the reboot is to find.
    local all
    all=$(podman ps -a --format '{{.Names}}' | grep -vxE 'always|plain')
    [ -z "$all" ] || podman rm -fi -t 0 $all >/dev/null 2>&1
}
gone() { ! systemctl is-active -q "$1"; }

case_main_job() {
    has "$(pod info --format '{{.Host.CgroupManager}} {{.Host.CgroupsVersion}}')" "systemd v2"
    has "$(pod run --rm --device nvidia.com/gpu=all fleet-glibc nvidia-smi)" "NVIDIA-SMI"
    same "$(pod run --rm --device nvidia.com/gpu=all fleet-glibc nvidia-smi -L | wc -l)" 2 "number of GPUs"
}
case_scope() {
    start scope "${GPU0[@]}" "${SLEEP[@]}"
    local unit pid
    unit=$(unit_of scope) pid=$(podman inspect --format '{{.State.Pid}}' scope)
    same "$(prop "$unit" ActiveState)" active
    same "$(prop "$unit" Slice)" machine.slice
    same "$(prop "$unit" Delegate)" yes
    same "$(cat "/proc/$pid/cgroup")" "0::/machine.slice/$unit"
    same "$(wc -l < "$(cgroup_of "$unit")/cgroup.procs")" 1 "number of processes in the scope"
    pod rm -f -t 0 scope >/dev/null
    gone "$unit"
    [ ! -e "/sys/fs/cgroup/machine.slice/$unit" ] || die "the cgroup is left"
    [ -z "$(systemctl list-units --all --no-legend "$unit")" ] || die "the unit is left"
}
case_daemon_reload() {
    start reload "${GPU0[@]}" "${SLEEP[@]}"
    isolated reload
    systemctl daemon-reload
    isolated reload
    has "$(systemctl show -p DeviceAllow "$(unit_of reload)")" "/dev/char/"
    same "$(prop "$(unit_of reload)" DevicePolicy)" strict
    systemctl daemon-reexec
    isolated reload
    has "$(podman exec reload nvidia-smi -L)" "GPU 0"
}
case_device_isolation() {
    start iso0 "${GPU0[@]}" "${SLEEP[@]}"
    start iso1 --cap-add MKNOD --device nvidia.com/gpu=1 "${SLEEP[@]}"
    isolated iso0
    same "$(podman exec iso1 sh -c 'true </dev/nvidia1 && echo own')" own "GPU 1"
    same "$(pod run --rm --cap-add MKNOD fleet-busybox sh -c "$(other_gpu)")" "not permitted" "GPU 1 without any"
    # Every access that a container has by default, and a privileged one.
    pod run --rm fleet-busybox sh -c 'echo >/dev/null && head -c 1 /dev/zero >/dev/null && head -c 1 /dev/urandom >/dev/null && true </dev/tty0' 2>/dev/null && die "tty0 opened"
    pod run --rm --privileged fleet-busybox sh -c 'mknod /x c 1 11 && true </x'
}
case_memory() {
    start memory --memory 64m --memory-swap 64m --memory-reservation 32m "${SLEEP[@]}"
    local unit dir
    unit=$(unit_of memory) dir=$(cgroup_of "$(unit_of memory)")
    for _ in 1 2; do
        same "$(cat "$dir/memory.max")" 67108864 memory.max
        same "$(cat "$dir/memory.low")" 33554432 memory.low
        [ ! -e "$dir/memory.swap.max" ] || same "$(cat "$dir/memory.swap.max")" 0 memory.swap.max
        same "$(prop "$unit" MemoryMax)" 67108864 MemoryMax
        systemctl daemon-reload
    done
}
case_oom() {
    pod run --name oom --memory 32m --memory-swap 32m fleet-busybox tail /dev/zero
    same $? 137 "exit code"
    same "$(podman inspect --format '{{.State.OOMKilled}}' oom)" true OOMKilled
    # The same unit again, whatever state the kill left it in.
    podman start -a oom
    same $? 137 "exit code of the second start"
}
case_cpu() {
    start cpu --cpus 0.3 --cpu-shares 512 fleet-busybox sh -c 'while :; do :; done'
    local unit dir
    unit=$(unit_of cpu) dir=$(cgroup_of "$(unit_of cpu)")
    for _ in 1 2; do
        same "$(cat "$dir/cpu.max")" "30000 100000" cpu.max
        same "$(prop "$unit" CPUQuotaPerSecUSec)" 300ms CPUQuotaPerSecUSec
        same "$(cat "$dir/cpu.weight")" "$(prop "$unit" CPUWeight)" cpu.weight
        systemctl daemon-reload
    done
    sleep 2
    [ "$(awk '/nr_throttled/ {print $2}' "$dir/cpu.stat")" -gt 0 ] || die "it was never throttled"
}
case_cpuset() {
    start cpuset --cpuset-cpus 1 "${SLEEP[@]}"
    same "$(podman exec cpuset nproc)" 1 nproc
    same "$(prop "$(unit_of cpuset)" AllowedCPUs)" 1 AllowedCPUs
    systemctl daemon-reload
    same "$(cat "$(cgroup_of "$(unit_of cpuset)")/cpuset.cpus")" 1 cpuset.cpus
}
case_pids() {
    start pids --pids-limit 20 "${SLEEP[@]}"
    local unit
    unit=$(unit_of pids)
    for _ in 1 2; do
        same "$(cat "$(cgroup_of "$unit")/pids.max")" 20 pids.max
        same "$(prop "$unit" TasksMax)" 20 TasksMax
        systemctl daemon-reload
    done
    has "$(podman exec pids sh -c 'for i in $(seq 40); do sleep 100 & done; echo all' 2>&1)" "fork"
    [ "$(cat "$(cgroup_of "$unit")/pids.current")" -le 20 ] || die "more processes than allowed"
}
case_update() {
    start update --memory 64m "${GPU0[@]}" "${SLEEP[@]}"
    local unit dir
    unit=$(unit_of update) dir=$(cgroup_of "$(unit_of update)")
    pod update --memory 128m --cpus 0.5 update >/dev/null
    for _ in 1 2; do
        same "$(cat "$dir/memory.max")" 134217728 memory.max
        same "$(cat "$dir/cpu.max")" "50000 100000" cpu.max
        same "$(prop "$unit" MemoryMax)" 134217728 MemoryMax
        isolated update
        systemctl daemon-reload
    done
}
case_exec_logs_stop() {
    start els "${GPU0[@]}" fleet-glibc sh -c 'trap "echo bye; exit 5" TERM; echo hello; while :; do sleep 0.2; done'
    until_ok sh -c 'podman logs els | grep hello'
    has "$(podman exec els nvidia-smi -L)" "GPU 0"
    has "$(podman exec els cat /proc/self/cgroup)" "0::/"
    has "$(podman top els)" "sleep"
    podman stats --no-stream els >/dev/null
    pod stop els >/dev/null
    same "$(podman wait els)" 5 "exit code"
    has "$(podman logs els)" bye
    gone "$(unit_of els)"
    pod start els >/dev/null
    until_ok sh -c 'podman logs els | grep -c hello | grep 2'
    pod restart -t 1 els >/dev/null
    same "$(prop "$(unit_of els)" ActiveState)" active
}
case_pause() {
    start pause "${SLEEP[@]}"
    pod pause pause >/dev/null
    same "$(podman inspect --format '{{.State.Status}}' pause)" paused
    systemctl daemon-reload
    same "$(cat "$(cgroup_of "$(unit_of pause)")/cgroup.freeze")" 1 cgroup.freeze
    pod unpause pause >/dev/null
    same "$(podman exec pause echo on)" on
}
case_properties() {
    start props --stop-timeout 3 --annotation "org.systemd.property.MemoryHigh=uint64 50000000" "${SLEEP[@]}"
    # Podman's own annotation, from its stop timeout.
    same "$(prop "$(unit_of props)" TimeoutStopUSec)" 3s
    same "$(prop "$(unit_of props)" MemoryHigh)" 50000000
    local out
    out=$(pod run --rm --annotation "org.systemd.property.MemoryHigh=soon" fleet-busybox true 2>&1) && die "accepted"
    has "$out" "org.systemd.property.MemoryHigh"
    out=$(pod run --rm --annotation "org.systemd.property.NoSuchThing=true" fleet-busybox true 2>&1) && die "accepted"
    has "$out" "NoSuchThing"
    has "$out" "libpod-"
    out=$(pod run --rm --annotation "org.systemd.property.PIDs=[uint32 1]" fleet-busybox true 2>&1) && die "accepted"
    # conmon's own scopes are Podman's.
    local left
    left=$(systemctl list-units --all --plain --no-legend 'libpod-*' | grep -v -e libpod-conmon- -e "$(unit_of props)")
    [ -z "$left" ] || die "units are left: $left"
}
case_nested_cgroups() {
    # A container with cgroups of its own, as systemd or a container engine in it would make them.
    start nested --systemd=always fleet-busybox sh -c 'mkdir /sys/fs/cgroup/in && echo 1 >/sys/fs/cgroup/in/cgroup.procs && echo +memory +pids >/sys/fs/cgroup/cgroup.subtree_control && echo ready; exec sleep 1000'
    until_ok sh -c 'podman logs nested | grep ready'
    has "$(podman exec nested cat /proc/self/cgroup)" "/in"
    local unit
    unit=$(unit_of nested)
    pod rm -f -t 0 nested >/dev/null
    [ ! -e "/sys/fs/cgroup/machine.slice/$unit" ] || die "the cgroup is left"
}
case_pod() {
    pod pod create --name gpupod --share net >/dev/null 2>&1 || pod pod create --name gpupod --infra=false >/dev/null
    pod run -d --pod gpupod --name inpod "${GPU0[@]}" "${SLEEP[@]}" >/dev/null
    has "$(podman exec inpod nvidia-smi -L)" "GPU 0"
    has "$(prop "$(unit_of inpod)" ControlGroup)" "machine-libpod_pod"
    podman pod rm -f -t 0 gpupod >/dev/null
}
case_cgroupfs() {
    has "$(pod --cgroup-manager=cgroupfs run --rm --device nvidia.com/gpu=all fleet-glibc nvidia-smi -L)" "GPU 1"
}
case_without_bus() {
    # systemd's own socket is enough. After the rootless cases: a user's systemd does not come back to a bus that was gone.
    systemctl stop dbus.socket dbus.service 2>/dev/null
    local out code
    out=$(fleet_run nobus "$here/bundle"); code=$?
    systemctl start dbus.socket
    same "$code" 0 "exit code without a bus: $out"
}
# A bundle run without an engine.
fleet_run() {
    local dir=$bundles/$1
    mkdir -p "$dir/rootfs"
    tar -C "$dir/rootfs" -xf $here/busybox.tar
    (cd "$dir" && fleet-nvidia spec && sed -i 's/"terminal": true/"terminal": false/; s/"sh"/"cat", "\/proc\/self\/cgroup"/' config.json && fleet-nvidia --systemd-cgroup run "$1" 2>&1)
}
case_bare_runtime() {
    has "$(fleet_run bare)" "0::/"
    same "$(systemctl list-units --all --no-legend 'fleet-nvidia-*.scope')" ""
}
case_no_systemd_hint() {
    local dir=$bundles/hint out
    mkdir -p "$dir/rootfs"
    tar -C "$dir/rootfs" -xf $here/busybox.tar
    out=$(cd "$dir" && fleet-nvidia spec && sed -i 's/"terminal": true/"terminal": false/' config.json && unshare -m sh -c 'mount -t tmpfs none /run/systemd && fleet-nvidia --systemd-cgroup run hint' 2>&1) && die "it ran"
    has "$out" "hint: use --cgroup-manager=cgroupfs"
    same "$(printf '%s\n' "$out" | wc -l)" 1 "number of lines"
}
case_bus_only() {
    # Where systemd's own socket is out of reach, the system bus is the way.
    local out
    mkdir -p "$bundles/bus/rootfs"
    tar -C "$bundles/bus/rootfs" -xf $here/busybox.tar
    out=$(cd "$bundles/bus" && fleet-nvidia spec && sed -i 's/"terminal": true/"terminal": false/; s/"sh"/"cat", "\/proc\/self\/cgroup"/' config.json && unshare -m sh -c 'mount --bind /dev/null /run/systemd/private && fleet-nvidia --systemd-cgroup run busonly' 2>&1) || die "$out"
    has "$out" "0::/"
}
case_quadlet() {
    mkdir -p /etc/containers/systemd
    # At boot the package's service makes the spec that Podman resolves the device from.
    cat > /etc/containers/systemd/gpu.container <<Q
[Unit]
After=fleet-nvidia-cdi-refresh.service
[Container]
Image=localhost/fleet-glibc
AddDevice=nvidia.com/gpu=0
AddCapability=MKNOD
Exec=sh -c "nvidia-smi -L; trap 'exit 0' TERM; while :; do sleep 1; done"
GlobalArgs=--runtime fleet-nvidia
PodmanArgs=--memory 100m
[Install]
WantedBy=multi-user.target
Q
    systemctl daemon-reload
    systemctl start gpu.service || die "$(journalctl -u gpu.service --no-pager | tail -n 5)"
    same "$(systemctl is-active gpu.service)" active
    until_ok sh -c 'podman logs systemd-gpu 2>&1 | grep "GPU 0"'
    isolated systemd-gpu
    systemctl daemon-reload
    isolated systemd-gpu
    systemctl restart gpu.service
    isolated systemd-gpu
    systemctl stop gpu.service
    same "$(systemctl show --value -p Result gpu.service)" success
    podman container exists systemd-gpu && die "the container is left"
    return 0
}
case_generate_systemd() {
    pod create --name generated "${GPU0[@]}" "${SLEEP[@]}" >/dev/null
    (cd /etc/systemd/system && podman generate systemd --files --name generated >/dev/null 2>&1)
    systemctl daemon-reload
    systemctl start container-generated.service || die "$(journalctl -u container-generated.service --no-pager | tail -n 5)"
    isolated generated
    systemctl stop container-generated.service
    rm -f /etc/systemd/system/container-generated.service
}
case_apparmor() {
    [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ] || skip "AppArmor is off"
    [ "$(podman info --format '{{.Host.Security.AppArmorEnabled}}')" = true ] || skip "Podman finds no AppArmor"
    local label
    label=$(pod run --rm "${GPU0[@]}" fleet-glibc cat /proc/self/attr/current)
    has "$label" "containers-default"
    has "$(pod run --rm --security-opt apparmor=unconfined fleet-glibc cat /proc/self/attr/current)" "unconfined"
    pod run --rm --security-opt apparmor=no-such-profile fleet-busybox true 2>/dev/null && die "a missing profile was accepted"
    return 0
}
case_selinux() {
    [ -e /sys/fs/selinux/enforce ] || skip "the machine runs AppArmor; SELinux is not booted"
}
case_rootless() {
    has "$(apod info --format '{{.Host.CgroupManager}} {{.Host.Security.Rootless}}')" "systemd true"
    same "$(apod run --rm --device nvidia.com/gpu=all fleet-glibc nvidia-smi -L | wc -l)" 2 "number of GPUs"
    apod run -d --name rootless --memory 64m --pids-limit 30 "${GPU0[@]}" "${SLEEP[@]}" >/dev/null
    local id pid place
    id=$(ann podman inspect --format '{{.Id}}' rootless) pid=$(ann podman inspect --format '{{.State.Pid}}' rootless)
    place=$(cut -d: -f3 "/proc/$pid/cgroup")
    has "$place" "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-$id.scope"
    same "$(cat "/sys/fs/cgroup$place/memory.max")" 67108864 memory.max
    same "$(cat "/sys/fs/cgroup$place/pids.max")" 30 pids.max
    same "$(ann systemctl --user show --value -p MemoryMax "libpod-$id.scope")" 67108864
    ann systemctl --user daemon-reload
    systemctl daemon-reload
    has "$(ann podman exec rootless nvidia-smi -L)" "GPU 0"
    same "$(cat "/sys/fs/cgroup$place/memory.max")" 67108864 memory.max
    ann podman exec rootless cat /proc/self/cgroup >/dev/null
    ann podman stop -t 1 rootless >/dev/null
    [ ! -e "/sys/fs/cgroup$place" ] || die "the cgroup is left"
    ann podman start rootless >/dev/null
    ann podman rm -f -t 0 rootless >/dev/null
}
case_rootless_oom() {
    apod run --name roomless --memory 32m --memory-swap 32m fleet-busybox tail /dev/zero
    same $? 137 "exit code"
    ann podman rm -f roomless >/dev/null
}
case_rootless_ssh_session() {
    # From a login's own scope, which the user's systemd does not own.
    local out
    out=$(systemd-run -q --pipe --wait --uid=1000 -p PAMName=login -p User=ann env XDG_RUNTIME_DIR=/run/user/1000 HOME=/home/ann \
        podman --runtime fleet-nvidia run --rm --memory 64m --device nvidia.com/gpu=0 fleet-glibc sh -c 'nvidia-smi -L; cat /sys/fs/cgroup/memory.max' 2>&1) || die "$out"
    has "$out" "GPU 0"
    has "$out" 67108864
}
case_rootless_bare_runtime() {
    # Without an engine that would first move into a scope of its own.
    local dir=/tmp/ann-bare out
    rm -rf $dir; mkdir -p $dir/rootfs
    tar -C $dir/rootfs -xf $here/busybox.tar
    chown -R 1000:1000 $dir
    out=$(systemd-run -q --pipe --wait --uid=1000 -p PAMName=login -p WorkingDirectory=$dir env XDG_RUNTIME_DIR=/run/user/1000 \
        sh -c 'fleet-nvidia spec --rootless && sed -i "s/\"terminal\": true/\"terminal\": false/; s/\"sh\"/\"cat\", \"\/proc\/self\/cgroup\"/" config.json && fleet-nvidia --systemd-cgroup run annbare' 2>&1) || die "$out"
    has "$out" "0::/"
    same "$(ann systemctl --user list-units --all --no-legend 'fleet-nvidia-*')" ""
}
case_rootless_quadlet() {
    ann mkdir -p /home/ann/.config/containers/systemd
    ann sh -c 'cat > /home/ann/.config/containers/systemd/mine.container' <<Q
[Container]
Image=localhost/fleet-glibc
AddDevice=nvidia.com/gpu=0
Exec=sh -c "nvidia-smi -L; exec sleep 1000"
GlobalArgs=--runtime fleet-nvidia
[Service]
Restart=on-failure
RestartSec=5
[Install]
WantedBy=default.target
Q
    ann systemctl --user daemon-reload
    ann systemctl --user start mine.service || die "$(journalctl _UID=1000 --no-pager | tail -n 5)"
    until_ok sh -c 'cd / && runuser -u ann -- env -i PATH=$PATH HOME=/home/ann XDG_RUNTIME_DIR=/run/user/1000 podman logs systemd-mine | grep "GPU 0"'
    ann systemctl --user stop mine.service
}
case_keep_for_reboot() {
    start always --restart=always "${GPU0[@]}" "${SLEEP[@]}"
    start plain "${GPU0[@]}" "${SLEEP[@]}"
    systemctl -q enable podman-restart.service
}
case_nothing_left() {
    # What the cases before left is taken away by Podman; then nothing of the runtime may be there.
    remove_others
    local units dirs
    units=$(systemctl list-units --all --no-legend 'libpod-*.scope' 'fleet-nvidia-*.scope' | grep -v conmon | wc -l)
    same "$units" "$(podman ps -q | wc -l)" "number of scopes"
    dirs=$(find /sys/fs/cgroup -type d -name 'libpod-*.scope' ! -name '*conmon*' | wc -l)
    same "$dirs" "$(podman ps -q | wc -l)" "number of cgroups"
    same "$(ls /run/fleet-nvidia | wc -l)" "$(podman ps -q | wc -l)" "number of state directories"
    pgrep -x 'fleet-nvidia' >/dev/null && die "a process of the runtime is left"
    return 0
}
case_reboot_restarts() {
    until_ok sh -c 'podman ps --format "{{.Names}}" | grep -x always'
    isolated always
    pod start plain >/dev/null
    isolated plain
    (until_ok systemctl is-active gpu.service) || die "$(journalctl -b -q --no-pager -o cat -u gpu.service -u fleet-nvidia-cdi-refresh.service | tail -n 12)"
    until_ok podman exec systemd-gpu true
    isolated systemd-gpu
    until_ok sh -c 'cd / && runuser -u ann -- env -i PATH=$PATH HOME=/home/ann XDG_RUNTIME_DIR=/run/user/1000 podman ps --format "{{.Names}}" | grep -x systemd-mine'
    podman rm -f -t 0 always plain >/dev/null
}

. "$here/node.sh"
. "$here/v1.sh"

BEFORE="main_job scope daemon_reload device_isolation memory oom cpu cpuset pids update exec_logs_stop pause properties nested_cgroups
    pod cgroupfs bare_runtime bus_only no_systemd_hint quadlet generate_systemd apparmor selinux
    rootless rootless_oom rootless_ssh_session rootless_bare_runtime rootless_quadlet without_bus
    units_installed units_preset driver_loaded driver_files_changed driver_upgrade no_gpu_keeps_the_spec units_beside_the_toolkit
    audit_journal doctor containerd node_install keep_driver_for_reboot keep_for_reboot nothing_left"
CGROUP_V1="v1_main_job v1_scope v1_devices v1_limits v1_memory v1_pause"
AFTER="reboot_spec reboot_restarts package_removed"

run_case() {
    rm -f "$run_dir/skip"
    local started=$SECONDS log=$run_dir/log
    (set -o pipefail; set -E; "case_$1") >"$log" 2>&1 </dev/null
    local code=$?
    case $code in
    0) echo "PASS $1 ($((SECONDS - started)) s)" ;;
    77) echo "SKIP $1: $(cat "$run_dir/skip")" ;;
    *) echo "FAIL $1: $(tail -n 12 "$log" | tr '\n' ' ' | cut -c 1-2000)" ;;
    esac
    [ "$1" = keep_for_reboot ] || remove_others
}

mkdir -p "$run_dir"
verb=$1
shift
case $verb in
setup) set -e; setup ;;
v1) for name in ${*:-$CGROUP_V1}; do run_case "$name"; done ;;
before) for name in ${*:-$BEFORE}; do run_case "$name"; done ;;
after) for name in ${*:-$AFTER}; do run_case "$name"; done ;;
esac
