# Sourced by cases.sh: systemd as cgroup manager where the machine was booted with cgroup v1.
V1=/sys/fs/cgroup
v1_file() { cat "$V1/$1$(prop "$(unit_of "$2")" ControlGroup)/$3"; }

case_v1_main_job() {
    has "$(pod info --format '{{.Host.CgroupManager}} {{.Host.CgroupsVersion}}')" "systemd v1"
    has "$(pod run --rm --device nvidia.com/gpu=all fleet-glibc nvidia-smi)" "NVIDIA-SMI"
}
case_v1_scope() {
    start v1scope "${GPU0[@]}" "${SLEEP[@]}"
    local unit pid place
    unit=$(unit_of v1scope) pid=$(podman inspect --format '{{.State.Pid}}' v1scope)
    # Every hierarchy, and systemd's own, by which it sees that the unit is in use.
    sleep 2
    same "$(prop "$unit" ActiveState)" active
    place=$(prop "$unit" ControlGroup)
    same "$place" "/machine.slice/$unit"
    same "$(grep -v ":$place\$" "/proc/$pid/cgroup" | grep -E ':(name=systemd|devices|memory|pids|cpu|cpu,cpuacct|blkio|freezer|cpuset|):')" "" "places elsewhere"
    same "$(podman exec v1scope echo on)" on
    pod stop -t 1 v1scope >/dev/null
    gone "$unit"
    pod start v1scope >/dev/null
    same "$(prop "$unit" ActiveState)" active
    pod rm -f -t 0 v1scope >/dev/null
    gone "$unit"
    same "$(find $V1 -type d -name "*$unit*" | grep -v conmon)" "" "cgroups that are left"
    [ -z "$(systemctl list-units --all --no-legend "$unit")" ] || die "the unit is left"
}
case_v1_devices() {
    start v1dev "${GPU0[@]}" "${SLEEP[@]}"
    isolated v1dev
    same "$(prop "$(unit_of v1dev)" DevicePolicy)" strict
    has "$(systemctl show -p DeviceAllow "$(unit_of v1dev)")" "/dev/char/"
    systemctl daemon-reload
    isolated v1dev
    systemctl daemon-reexec
    isolated v1dev
    pod update --cpus 0.5 v1dev >/dev/null
    isolated v1dev
    same "$(pod run --rm --cap-add MKNOD fleet-busybox sh -c "$(other_gpu)")" "not permitted" "GPU 1 without any"
    pod run --rm --privileged fleet-busybox sh -c 'mknod /x c 1 11 && true </x'
}
case_v1_limits() {
    start v1limits --cpus 0.3 --cpu-shares 512 --pids-limit 20 "${SLEEP[@]}"
    local unit
    unit=$(unit_of v1limits)
    for _ in 1 2; do
        same "$(v1_file cpu v1limits cpu.cfs_quota_us)" 30000 cpu.cfs_quota_us
        same "$(prop "$unit" CPUQuotaPerSecUSec)" 300ms CPUQuotaPerSecUSec
        same "$(v1_file cpu v1limits cpu.shares)" 512 cpu.shares
        same "$(v1_file pids v1limits pids.max)" 20 pids.max
        same "$(prop "$unit" TasksMax)" 20 TasksMax
        systemctl daemon-reload
    done
    pod update --cpus 0.5 v1limits >/dev/null
    for _ in 1 2; do
        same "$(v1_file cpu v1limits cpu.cfs_quota_us)" 50000 cpu.cfs_quota_us
        systemctl daemon-reload
    done
}
case_v1_memory() {
    [ -d $V1/memory ] || skip "this kernel has no memory controller on v1"
    start v1memory --memory 64m "${SLEEP[@]}"
    for _ in 1 2; do
        same "$(v1_file memory v1memory memory.limit_in_bytes)" 67108864 memory.limit_in_bytes
        same "$(prop "$(unit_of v1memory)" MemoryLimit)" 67108864 MemoryLimit
        systemctl daemon-reload
    done
}
case_v1_pause() {
    start v1pause "${SLEEP[@]}"
    pod pause v1pause >/dev/null
    same "$(v1_file freezer v1pause freezer.state)" FROZEN freezer.state
    systemctl daemon-reload
    pod unpause v1pause >/dev/null
    same "$(podman exec v1pause echo on)" on
}
