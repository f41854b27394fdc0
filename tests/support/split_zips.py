"""Split zip archives, written byte by byte, and a site that serves them and may misbehave."""

import hashlib
import re
import struct
import zlib
from dataclasses import dataclass, field

import numpy as np

from datasets_spec.download import Retry, Transfer

RNG = np.random.default_rng(0)
QUICK = Transfer(retry=Retry(attempts=3, first_delay=0.001))
ONCE = Transfer(retry=Retry(attempts=1))
FILES = {
    "v/1.mp4": RNG.bytes(5_000),
    "v/2.mp4": b"the same again " * 2_000,
    "v/3.mp4": b"",
    "v/4.mp4": RNG.bytes(700) + bytes(3_000),
    "v/ä.mp4": b"a name that is not ASCII",
}
LARGE = {f"v/{i}.mp4": RNG.bytes(40_000 + i) for i in range(10)}  # does not compress: about 40 kB each


@dataclass
class Entry:
    name: str
    body: bytes
    method: int = 8
    extra: int = 0  # bytes of extra fields in the local header alone
    flags: int = 0
    attributes: int = 0o100644 << 16
    crc: int | None = None
    size: int | None = None
    local_name: str | None = None


def entries(files=FILES):
    return [Entry(name, body, method=0 if name == "v/4.mp4" else 8) for name, body in files.items()]


def build(members, *, volume=1 << 30, zip64=False, comment=b"", archive="v.zip"):
    """Volumes by name: all but the last have `volume` bytes; places are counted from the start of each volume."""
    body, directory = bytearray(b"PK\7\x08"), bytearray()  # split archives begin with this mark
    for member in members:
        name = member.name.encode()
        compressor = zlib.compressobj(wbits=-15)
        packed = compressor.compress(member.body) + compressor.flush() if member.method == 8 else member.body
        crc = zlib.crc32(member.body) if member.crc is None else member.crc
        size = len(member.body) if member.size is None else member.size
        disk, offset = divmod(len(body), volume)
        common = (45, member.flags | 0x800, member.method, 0, 33, crc)
        local = (member.local_name or member.name).encode()
        body += struct.pack("<4s5H3L2H", b"PK\3\4", *common, len(packed), size, len(local), member.extra)
        body += local + bytes(member.extra) + packed
        numbers, extra = (len(packed), size, offset), b""
        if zip64:
            extra = struct.pack("<2H3Q", 1, 24, size, len(packed), offset)
            numbers = (0xFFFFFFFF,) * 3
        directory += struct.pack("<4s6H3L", b"PK\1\2", 0x031E, *common, *numbers[:2])
        directory += struct.pack("<5H2L", len(name), len(extra), 0, disk, 0, member.attributes, numbers[2])
        directory += name + extra
    (first, offset), count = divmod(len(body), volume), len(members)
    body += directory
    record, fields = divmod(len(body), volume), (count, count, len(directory), offset)
    if zip64:
        last = (len(body) + 55) // volume
        body += struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, last, first, *fields)
    last = (len(body) - 1) // volume
    end = struct.pack("<4sLQL", b"PK\6\7", *record, last + 1) if zip64 else b""
    fields = (0xFFFF,) * 4 + (0xFFFFFFFF,) * 2 if zip64 else (last, first, *fields)
    parts = [bytes(body[i : i + volume]) for i in range(0, len(body), volume)]
    parts[-1] += end + struct.pack("<4s4H2LH", b"PK\5\6", *fields, len(comment)) + comment  # these are never split
    names = [f"{archive.removesuffix('.zip')}.z{i + 1:02d}" for i in range(len(parts) - 1)] + [archive]
    return dict(zip(names, parts, strict=True))


def write(folder, volumes):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in volumes.items():
        (folder / name).write_bytes(data)
    return folder


def read(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclass
class Site:
    """Files on a server, and how it behaves."""

    url: str
    files: dict[str, bytes]
    validators: bool = True
    ranges: bool = True
    check_if_range: bool = True
    short: int | None = None  # give at most so many bytes of a range
    cuts: list[int] = field(default_factory=list)  # long answers break off after so many bytes
    statuses: list[int] = field(default_factory=list)  # answers to give first
    requests: list[tuple[str, str | None, int]] = field(default_factory=list)  # path, Range, bytes sent

    def sent(self):
        return sum(sent for _, _, sent in self.requests)

    def answer(self, path, headers):
        """Status, headers and body."""
        if path.startswith("old/"):
            return 302, {"Location": f"/{path.removeprefix('old/')}"}, b""
        if path not in self.files:
            return 404, {}, b""
        if self.statuses:
            return self.statuses.pop(0), {"Retry-After": "0"}, b""
        data = self.files[path]
        etag = f'"{hashlib.sha256(data).hexdigest()[:8]}"'
        common = {"ETag": etag} if self.validators else {}
        honoured = self.ranges and (not self.check_if_range or headers.get("If-Range") in (None, etag))
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("Range", ""))
        if match is None or not honoured:
            return 200, common, data
        start, stop = int(match[1]), min(int(match[2]) + 1, len(data))
        if start >= stop:
            return 416, {"Content-Range": f"bytes */{len(data)}"}, b""
        stop = min(stop, start + (self.short or len(data)))
        return 206, {**common, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}, data[start:stop]
