"""What a worker of the feed and the trainer say to each other over a pipe: JSON headers with arrays behind them."""

import json
from typing import IO, Any

import numpy as np

from tasks.train.packing import Row

LENGTH_BYTES = 8
Frame = tuple[dict[str, Any], Row]


def write_frame(pipe: IO[bytes], header: dict[str, Any], rows: Row) -> None:
    """Write the length of the header, the header (with name, type and shape of each array), and the arrays."""
    arrays = [(name, array.dtype.str, array.shape) for name, array in rows.items()]
    text = json.dumps(header | {"arrays": arrays}).encode()
    pipe.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
    for array in rows.values():
        pipe.write(np.ascontiguousarray(array).data)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> Frame | None:
    """The next whole frame, None at the end; what a killed writer left of one is no frame."""
    length = _read_whole(pipe, LENGTH_BYTES)
    text = length and _read_whole(pipe, int.from_bytes(length, "little"))
    if not text:
        return None
    header = json.loads(text)
    rows: Row = {}
    for name, dtype, shape in header.pop("arrays"):
        data = _read_whole(pipe, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        if data is None:
            return None
        rows[name] = np.frombuffer(data, dtype).reshape(shape)
    return header, rows


def _read_whole(pipe: IO[bytes], size: int) -> bytearray | None:
    """So many bytes, None when the pipe ends before."""
    data = bytearray(size)
    left = memoryview(data)
    while left:
        got = pipe.readinto(left)  # pyright: ignore[reportAttributeAccessIssue]
        if not got:
            return None
        left = left[got:]
    return data
