# Sourced by cases.sh. The package on a node whose driver comes, changes and goes: its units, the journal, doctor, engines.
unit=fleet-nvidia-cdi-refresh
spec=/run/cdi/fleet-nvidia.yaml
FIRST=550.54.15 SECOND=555.42.02 THIRD=560.35.03

# install_driver VERSION [LOADED]: puts the files of this version where a driver's package would, in place of those of the
# version before. NVML refuses to work where another is loaded.
install_driver() {
    local tree=/opt/driver-$1-${2:-$1} gpus="" dir
    printf 'driver = "%s"\nmodule = "%s"\n[[gpu]]\nmodel = "h100"\ncount = 2\n' "$1" "${2:-$1}" > /opt/machine.toml
    [ -d "$tree" ] || "$here/fleet-simulate" create --machine /opt/machine.toml --nodes listed --root "$tree" --quiet
    [ ! -e /opt/driver.files ] || (cd / && xargs rm -f < /opt/driver.files)
    (cd "$tree" && find usr etc -not -type d) > /opt/driver.files
    tar -C "$tree" -c -T /opt/driver.files | tar -C / -x
    for dir in "$tree"/proc/driver/nvidia/gpus/*; do
        gpus+=,${dir##*/}=$(sed -n 's/^GPU UUID:[[:space:]]*//p' "$dir/information")
    done
    echo "options nvidia version=$1 gpu=${gpus#,}" > /etc/modprobe.d/nvidia.conf
    ldconfig
}
unload_driver() { modprobe -r nvidia-uvm nvidia-modeset nvidia; }
# Each run of the service has an id of its own.
run_id() { prop $unit.service InvocationID; }
has_run_since() { [ "$(run_id)" != "$1" ] && case $(prop $unit.service ActiveState) in inactive | failed) ;; *) false ;; esac; }
ran_since() { until_ok has_run_since "$1"; }
# What the programs of the last run had to say.
said() { journalctl --no-pager -o cat "_SYSTEMD_INVOCATION_ID=$(run_id)"; }
# The names of libraries in the spec are those of one version.
spec_is_of() { grep -q "libcuda.so.$1" $spec && [ "$(grep -o 'libcuda\.so\.[0-9][0-9.]*[0-9]' $spec | grep -v '\.so\.1$' | sort -u)" = "libcuda.so.$1" ]; }
shows_version() { has "$(pod run --rm --device nvidia.com/gpu=all fleet-glibc nvidia-smi)" "$1"; }
not_failed() { ! systemctl is-failed -q "$1" || die "$1 has failed"; }

case_units_installed() {
    local kind
    for kind in service path; do same "$(systemctl is-enabled $unit.$kind)" enabled "$unit.$kind"; done
    same "$(systemctl is-active $unit.path)" active
    # Without a driver the service is passed over, in silence.
    systemctl start $unit.service || die "it fails without a driver"
    same "$(prop $unit.service ConditionResult)" no
    not_failed $unit.service
    [ ! -e $spec ] || die "there is a spec"
}
case_units_preset() {
    mkdir -p /etc/systemd/system-preset
    cp $here/90-fleet-nvidia.preset /etc/systemd/system-preset/
    systemctl -q disable --now $unit.path $unit.service
    same "$(systemctl is-enabled $unit.path)" disabled
    systemctl -q preset $unit.path $unit.service
    rm /etc/systemd/system-preset/90-fleet-nvidia.preset
    local kind
    for kind in service path; do same "$(systemctl is-enabled $unit.$kind)" enabled "$unit.$kind"; done
    systemctl start $unit.path
}
case_driver_loaded() {
    # From here on the node is what the package makes of it.
    rm -f /etc/cdi/nvidia.yaml /etc/tmpfiles.d/nodes.conf /dev/nvidia*
    install_driver $FIRST
    local before
    before=$(run_id)
    modprobe nvidia
    # The udev rule starts the service; that one loads the other modules and makes the nodes.
    ran_since "$before"
    same "$(prop $unit.service Result)" success "result ($(said))"
    same "$(said | grep -c fleet-nvidia.yaml)" 1 "lines about the spec"
    has "$(said)" "fleet-nvidia.yaml: written, 5 devices"
    grep -q nvidia_uvm /proc/modules || die "nvidia-uvm is not loaded"
    same "$(stat -c '%Hr:%Lr %a' /dev/nvidia1)" "195:1 666"
    same "$(stat -c '%Lr %a' /dev/nvidia-uvm-tools)" "1 666"
    spec_is_of $FIRST || die "the spec is of another version"
    has "$(fleet-nvidia-ctl cdi list)" "nvidia.com/gpu=all"
    fleet-nvidia-ctl cdi validate >/dev/null || die "$(fleet-nvidia-ctl cdi validate 2>&1)"
    shows_version $FIRST
    start driver0 "${GPU0[@]}" "${SLEEP[@]}"
    isolated driver0
    has "$(podman exec driver0 nvidia-smi -L)" "GPU 0"
}
case_driver_files_changed() {
    # The path unit alone: no module is loaded here.
    local lib
    lib=$(ls /usr/lib/x86_64-linux-gnu/libnvidia-encode.so.$FIRST)
    mv "$lib" /opt/
    ldconfig
    until_ok sh -c "! grep -q libnvidia-encode.so.$FIRST $spec"
    mv "/opt/${lib##*/}" "$lib"
    ldconfig
    until_ok grep -q libnvidia-encode.so.$FIRST $spec
    printf %s $SECOND > /sys/module/nvidia/parameters/version
    install_driver $SECOND
    until_ok spec_is_of $SECOND
    until_ok gone $unit.service
    not_failed $unit.service
    has "$(journalctl --no-pager -o cat -u $unit.service)" "fleet-nvidia.yaml: replaced, 5 devices"
    shows_version $SECOND
}
case_driver_upgrade() {
    # The new driver's files are there, and the old module is still loaded: the spec stays until that is changed, too.
    local before lines
    cp $spec /opt/spec
    before=$(run_id)
    install_driver $THIRD $SECOND
    until_ok systemctl is-failed -q $unit.service
    until_ok has_run_since "$before"
    cmp $spec /opt/spec || die "the spec was touched"
    lines=$(said)
    # NVML's complaint, and the fault with what to do.
    same "$(printf '%s\n' "$lines" | wc -l)" 2 "number of lines ($lines)"
    has "$lines" "find libraries of driver version $SECOND, which is loaded: those below / are of version $THIRD; hint: reboot"
    has "$(systemctl status -l --no-pager $unit.service)" "hint: reboot"
    unload_driver
    install_driver $THIRD
    modprobe nvidia
    until_ok spec_is_of $THIRD
    until_ok gone $unit.service
    not_failed $unit.service
    shows_version $THIRD
}
case_no_gpu_keeps_the_spec() {
    local before
    cp $spec /opt/spec
    unload_driver
    # No driver at all: nothing is asked, nothing fails.
    systemctl start $unit.service || die "it fails without a driver"
    same "$(prop $unit.service ConditionResult)" no
    echo "options nvidia version=$THIRD" > /etc/modprobe.d/nvidia.conf
    rm -f /dev/nvidia[0-9]
    before=$(run_id)
    modprobe nvidia
    ran_since "$before"
    same "$(prop $unit.service Result)" exit-code
    has "$(said | tail -n 1)" "the driver knows no GPU"
    cmp $spec /opt/spec || die "the spec was touched"
    unload_driver
    install_driver $THIRD
    modprobe nvidia
    until_ok test -e /dev/nvidia1
    until_ok gone $unit.service
    until_ok spec_is_of $THIRD
    cmp $spec /opt/spec || die "the same driver has another spec"
    not_failed $unit.service
}
case_units_beside_the_toolkit() {
    cp $spec /run/cdi/nvidia.yaml
    systemctl start $unit.service
    rm /run/cdi/nvidia.yaml
    same "$(prop $unit.service ConditionResult)" no "condition beside the toolkit's spec"
    systemctl start $unit.service
    same "$(prop $unit.service ConditionResult)" yes
    has "$(said)" "fleet-nvidia.yaml: up to date"
}
# event LINE…: of the audit trail, one word of each.
case_audit_journal() {
    fleet-nvidia-ctl config set audit.journald=true profile=crio >/dev/null
    local id refused entry
    start audited "${GPU0[@]}" "${SLEEP[@]}"
    id=$(podman inspect --format '{{.Id}}' audited)
    pod rm -f -t 0 audited >/dev/null
    pod run --name refused -e NVIDIA_VISIBLE_DEVICES=1 fleet-glibc true
    refused=$(podman inspect --format '{{.Id}}' refused)
    pod rm -f refused >/dev/null
    fleet-nvidia-ctl config unset audit.journald profile >/dev/null
    until_ok sh -c "journalctl -q FLEET_CONTAINER=$id FLEET_EVENT=delete | grep ."
    same "$(journalctl -q --no-pager -o cat -t fleet-nvidia "FLEET_CONTAINER=$id" --output-fields=FLEET_EVENT | tr '\n' ' ')" "create start delete "
    entry=$(journalctl -q --no-pager -o cat --output-fields=MESSAGE "FLEET_CONTAINER=$id" FLEET_EVENT=create)
    printf '%s' "$entry" | python3 -c '
import json, sys
event = json.load(sys.stdin)
gpu = [device for device in event["devices"] if device["path"] == "/dev/nvidia0"]
assert event["schemaVersion"] == 1 and event["uid"] == 0, event
assert len(gpu) == 1 and (gpu[0]["major"], gpu[0]["minor"]) == (195, 0), event
' || die "$entry"
    has "$(journalctl -q --no-pager -o cat "FLEET_CONTAINER=$refused" FLEET_EVENT=denied)" "NVIDIA_VISIBLE_DEVICES"
}
case_doctor() {
    local out
    out=$(fleet-nvidia-ctl doctor) || die "$(printf '%s\n' "$out" | grep -vE '^ *(ok|fine|OK)' | head -n 12)"
    out=$(fleet-nvidia-ctl doctor --smoke-podman) || die "$out"
}

cri() { python3 $here/cri.py "$@"; }
PAUSE=localhost/fleet-pause:latest
# Real containerd, its containers' cgroups made by systemd.
containerd_node() {
    mkdir -p /etc/containerd
    [ -e /etc/containerd/main ] || {
        containerd config default | sed "s#SystemdCgroup = false#SystemdCgroup = true#; s#sandbox_image = .*#sandbox_image = \"$PAUSE\"#; s#enable_cdi = false#enable_cdi = true#" > /etc/containerd/config.toml
        touch /etc/containerd/main
        podman import -q -c 'CMD ["sleep","100000"]' $here/busybox.tar fleet-pause >/dev/null
        local image
        for image in fleet-pause fleet-glibc; do
            podman save -q -o /opt/image.tar localhost/$image
            systemctl start containerd
            ctr -n k8s.io images import /opt/image.tar >/dev/null || die "ctr does not take $image"
            rm /opt/image.tar
        done
    }
    systemctl restart containerd
    until_ok cri handlers
}
handler_is_known() { cri handlers | grep -qx nvidia; }
# A pod with GPU 0 through the handler: its place, its devices, what it survives. The pod's id is in $pod.
gpu_pod() {
    local slice=kubepods-podgpu.slice container scope place
    pod=$(cri pod gpu nvidia $slice) || die "no pod"
    container=$(cri container "$pod" main $slice localhost/fleet-glibc:latest nvidia.com/gpu=0) || die "no container"
    scope=cri-containerd-$container.scope
    same "$(prop "$scope" ActiveState)" active "scope of the container"
    same "$(prop "$scope" Slice)" $slice
    same "$(prop "$scope" MemoryMax)" 104857600 MemoryMax
    place=$(cgroup_of "$scope")
    same "$(cat "$place/memory.max")" 104857600 memory.max
    local after
    for after in nothing daemon-reload restart; do
        case $after in
        daemon-reload) systemctl daemon-reload ;;
        restart) systemctl restart containerd ;;
        esac
        same "$(cri exec "$container" sh -c 'true </dev/nvidia0 && echo own')" own "GPU 0 after $after"
        same "$(cri exec "$container" sh -c "$(other_gpu)")" "not permitted" "GPU 1 after $after"
    done
    has "$(cri exec "$container" nvidia-smi -L)" "GPU 0"
}
no_pod_is_left() {
    same "$(systemctl list-units --all --no-legend 'cri-containerd-*' | wc -l)" 0 "number of scopes"
    same "$(find /sys/fs/cgroup -type d -name 'cri-containerd-*' | wc -l)" 0 "number of cgroups"
}
case_containerd() {
    local pod
    containerd_node
    ! handler_is_known || die "the handler is there before"
    fleet-nvidia-ctl configure containerd
    cri handlers >/dev/null
    ! handler_is_known || die "the handler is there without a restart"
    systemctl restart containerd
    until_ok cri handlers
    handler_is_known || die "containerd does not know the handler: $(cri handlers)"
    gpu_pod
    cri remove "$pod"
    no_pod_is_left
    has "$(fleet-nvidia-ctl doctor --smoke-containerd 2>&1)" "ok       smoke-containerd/run"
    fleet-nvidia-ctl configure containerd --remove
    systemctl restart containerd
    until_ok cri handlers
    ! handler_is_known || die "the handler is there after --remove"
}
# What the DaemonSet's pod does: a container that sees the node's files and namespaces. Of another runtime, since its own
# container would keep this one in use.
installer() {
    podman --runtime crun run --rm --privileged --pid host --network host -v /:/host -v /opt/fleet/bin:/opt/bin:ro fleet-glibc \
        /opt/bin/fleet-nvidia-ctl node "$1" --root /host "${@:2}"
}
case_node_install() {
    local pod main out
    containerd_node
    mkdir -p /opt/fleet/bin
    cp /usr/bin/fleet-nvidia /usr/bin/fleet-nvidia-ctl /opt/fleet/bin/
    main=$(prop containerd.service MainPID)
    installer install --runtime containerd --restart systemd
    [ "$(prop containerd.service MainPID)" != "$main" ] || die "containerd was not restarted"
    until_ok cri handlers
    handler_is_known || die "containerd does not know the handler"
    has "$(containerd config dump)" /opt/fleet-nvidia/current/fleet-nvidia
    main=$(prop containerd.service MainPID)
    installer install --runtime containerd --restart systemd
    same "$(prop containerd.service MainPID)" "$main" "process of containerd after a second install"
    out=$(installer status) || die "$out"
    gpu_pod
    out=$(installer uninstall --restart systemd 2>&1) && die "it was taken from under a pod: $out"
    has "$out" "containers still need the runtime"
    cri remove "$pod"
    no_pod_is_left
    installer uninstall --restart systemd
    until_ok cri handlers
    ! handler_is_known || die "the handler is there after uninstall"
    [ ! -e /opt/fleet-nvidia ] || die "the programs are left"
    systemctl stop containerd
}
case_keep_driver_for_reboot() {
    echo nvidia > /etc/modules-load.d/nvidia.conf
}

case_reboot_spec() {
    spec_is_of $THIRD || die "the spec: $(journalctl --no-pager -b -o cat -u $unit.service | tail -n 3)"
    not_failed $unit.service
    has "$(journalctl --no-pager -b -o cat -u $unit.service)" "fleet-nvidia.yaml: written, 5 devices"
    local made started
    made=$(prop $unit.service ExecMainExitTimestampMonotonic) started=$(prop podman-restart.service ExecMainStartTimestampMonotonic)
    [ "$made" -gt 0 ] && [ "$made" -lt "$started" ] || die "the spec was made at $made, containers started at $started"
    shows_version $THIRD
}
case_package_removed() {
    local out
    systemctl stop gpu.service
    start holder "${GPU0[@]}" "${SLEEP[@]}"
    out=$(dpkg -r fleet-nvidia 2>&1) && die "it went from under a container"
    has "$out" "containers still need the runtime"
    remove_others
    [ -z "$(podman ps -aq)" ] || podman rm -fa -t 0 >/dev/null
    dpkg -r fleet-nvidia >/dev/null || die "it does not go"
    [ ! -e $spec ] || die "the spec is left"
    [ ! -e /etc/containers/containers.conf.d/50-fleet-nvidia.conf ] || die "Podman's drop-in is left"
    systemctl is-active -q $unit.path && die "the path unit is active"
    dpkg -P fleet-nvidia >/dev/null || die "it cannot be purged"
    same "$(systemctl list-unit-files --no-legend "$unit*" | wc -l)" 0 "number of unit files"
    same "$(systemctl list-units --failed --no-legend "$unit*" | wc -l)" 0 "number of failed units"
}
