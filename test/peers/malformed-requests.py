"""Sends, with libnbd's checks switched off, every kind of request that a server must refuse, on one connection.

Arguments: the URI of a writable export of 1 MiB, and of a read-only one. Prints a JSON object: name of the request to
"ok" or the name of its errno. After each request the connection must still answer, or the name ends in " then dead".
"""

import errno
import json
import sys

import nbd

SIZE = 1024 * 1024
TOP = 2**64 - 512
results = {}


def connect(uri):
    handle = nbd.NBD()
    handle.set_strict_mode(0)
    handle.connect_uri(uri)
    return handle


def attempt(handle, name, call):
    try:
        call()
        results[name] = "ok"
    except nbd.Error as error:
        results[name] = errno.errorcode.get(error.errnum, str(error.errnum)) if error.errnum else error.string
    try:
        handle.pread(512, 0)
    except nbd.Error:
        results[name] += " then dead"


h = connect(sys.argv[1])
block = bytearray(b"\xa5" * 512)
attempt(h, "read past the end", lambda: h.pread(512, SIZE))
attempt(h, "read across the end", lambda: h.pread(1024, SIZE - 512))
attempt(h, "read at the top of the address space", lambda: h.pread(512, TOP))
attempt(h, "read that wraps around", lambda: h.pread(1024, TOP))
attempt(h, "write past the end", lambda: h.pwrite(block, SIZE))
attempt(h, "write across the end", lambda: h.pwrite(block + block, SIZE - 512))
attempt(h, "write that wraps around", lambda: h.pwrite(block + block, TOP))
attempt(h, "trim past the end", lambda: h.trim(512, SIZE))
attempt(h, "trim that wraps around", lambda: h.trim(4096, TOP))
attempt(h, "zero past the end", lambda: h.zero(512, SIZE))
attempt(h, "zero across the end", lambda: h.zero(2**31, SIZE - 512))
attempt(h, "cache past the end", lambda: h.cache(512, SIZE))
attempt(h, "read with an unknown flag", lambda: h.pread(512, 0, flags=1 << 9))
attempt(h, "write with an unknown flag", lambda: h.pwrite(block, 0, flags=1 << 9))
attempt(h, "flush with an unknown flag", lambda: h.flush(flags=1 << 9))
attempt(h, "trim with an unknown flag", lambda: h.trim(512, 0, flags=1 << 9))
attempt(h, "zero with an unknown flag", lambda: h.zero(512, 0, flags=1 << 9))
attempt(h, "read with FUA", lambda: h.pread(512, 0, flags=nbd.CMD_FLAG_FUA))
attempt(h, "flush with FUA", lambda: h.flush(flags=nbd.CMD_FLAG_FUA))
attempt(h, "trim with FUA", lambda: h.trim(512, 512, flags=nbd.CMD_FLAG_FUA))
attempt(h, "zero with FUA", lambda: h.zero(512, 1024, flags=nbd.CMD_FLAG_FUA))
results["first block"] = "untouched" if h.pread(512, 0) == bytes(512) else "written"
results["last block"] = "untouched" if h.pread(512, SIZE - 512) == bytes(512) else "written"
h.shutdown()

r = connect(sys.argv[2])
attempt(r, "write to a read-only export", lambda: r.pwrite(block, 0))
attempt(r, "trim of a read-only export", lambda: r.trim(512, 0))
attempt(r, "zero of a read-only export", lambda: r.zero(512, 0))
attempt(r, "read of a read-only export", lambda: r.pread(512, 0))
results["read-only block"] = "untouched" if r.pread(512, 0) == bytes(512) else "written"
r.shutdown()

print(json.dumps(results))
