"""The admin socket as include/tekd/admin.h describes it, for what a test looks at again and again:
there a tekctl each time would be most of the work of the machine."""

import json
import socket


class Refused(AssertionError):
    pass


def _call(path, request, timeout):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(timeout)
        s.connect(path)
        s.sendall(json.dumps(request).encode() + b"\n")
        with s.makefile("rb") as f:
            line = f.readline()
    if not line.endswith(b"\n"):
        raise Refused(f"{request}: no answer but {line!r}")
    answer = json.loads(line)
    if answer["ok"] is not True:
        raise Refused(f"{request}: {answer['error']}")
    return answer["result"]


def look(path, command, timeout=60, **arguments):
    """The result, which for a list is the whole of it, page after page."""
    request = {"command": command, **arguments}
    result = _call(path, request, timeout)
    if not isinstance(result, dict) or "list" not in result:
        return result
    found = result["list"]
    while "next" in result:
        result = _call(path, {**request, "after": result["next"]}, timeout)
        found += result["list"]
    return found
