"""A client of containerd's CRI, as far as the cases need one. Debian has no crictl, so the messages of
k8s.io/cri-api/pkg/apis/runtime/v1/api.proto are written here by field number.

    handlers                                  names of the runtime handlers in force, one a line
    pod NAME HANDLER SLICE                    runs a pod in the host's network; its id
    container POD NAME SLICE IMAGE DEVICE…    starts `sleep` in it, with CDI devices; its id
    exec CONTAINER COMMAND…                   its output and exit status
    remove POD                                with all that is in it
"""
import json
import sys

import grpc

NODE = 2


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def message(*fields):
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def fields(data):
    """Number and value of each field; lengths and plain numbers only, which is all that the answers hold."""
    at = 0

    def number():
        nonlocal at
        out = shift = 0
        while True:
            byte = data[at]
            at += 1
            out |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return out

    while at < len(data):
        key = number()
        if key & 7 == 0:
            yield key >> 3, number()
        else:
            length = number()
            yield key >> 3, data[at : at + length]
            at += length


def call(method, request):
    options = [("grpc.default_authority", "localhost")]
    with grpc.insecure_channel("unix:///run/containerd/containerd.sock", options) as channel:
        function = channel.unary_unary(f"/runtime.v1.RuntimeService/{method}", lambda data: data, lambda data: data)
        try:
            return list(fields(function(request, timeout=300, wait_for_ready=True)))
        except grpc.RpcError as err:
            sys.exit(f"{method}: {err.details()}")


def handlers():
    entries = (dict(fields(entry)) for number, entry in call("Status", message((1, 1))) if number == 2)
    config = next(json.loads(entry[2]) for entry in entries if entry[1] == b"config")
    return sorted(config["containerd"]["runtimes"])


def sandbox(name, parent):
    security = message((1, message((1, NODE))))
    return message(
        (1, message((1, name), (2, f"uid-{name}"), (3, "default"))),
        (8, message((1, parent), (2, security))),
    )


def pod(name, handler, parent):
    return dict(call("RunPodSandbox", message((1, sandbox(name, parent)), (2, handler))))[1].decode()


def container(pod, name, parent, image, *devices):
    network = message((3, message((1, NODE))))
    config = message(
        (1, message((1, name))),
        (2, message((1, image))),
        (3, "sleep"),
        (3, "1000"),
        (15, message((1, message((4, 100 << 20))), (2, network))),
        *((17, message((1, device))) for device in devices),
    )
    request = message((1, pod), (2, config), (3, sandbox("gpu", parent)))
    made = dict(call("CreateContainer", request))[1]
    call("StartContainer", message((1, made)))
    return made.decode()


def execute(container, *command):
    answer = dict(call("ExecSync", message((1, container), *((2, word) for word in command))))
    sys.stdout.write((answer.get(1, b"") + answer.get(2, b"")).decode())
    sys.exit(answer.get(3, 0))


def remove(pod):
    call("StopPodSandbox", message((1, pod)))
    call("RemovePodSandbox", message((1, pod)))


verb, rest = sys.argv[1], sys.argv[2:]
if verb == "handlers":
    print("\n".join(handlers()))
elif verb == "exec":
    execute(*rest)
else:
    made = {"pod": pod, "container": container, "remove": remove}[verb](*rest)
    print(made or "")
