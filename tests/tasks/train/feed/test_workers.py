"""Worker processes end with the trainer, and the run ends with the right error when one of them fails."""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ConfigError, DataFault, HostFault
from tasks.tokens import TextTokenizer
from tasks.train.feed.batches import Batches, prefetched
from tasks.train.feed.frames import read_frame, write_frame
from tests.tasks.train.feed.sample import open_feed, same, take

ROOT = Path(__file__).resolve().parents[4]


@contextlib.contextmanager
def fed(batches, workers=2):
    feed = prefetched(batches, workers)
    try:
        yield feed
    finally:
        feed.close()


def pids(feed) -> list[int]:
    return [worker._process.pid for worker in feed._workers]


def is_gone(pid: int) -> bool:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
        except FileNotFoundError:
            return True
        if state == "Z":  # dead; whoever inherited it has not asked yet
            return True
        time.sleep(0.05)
    return False


def test_a_worker_that_is_killed_is_a_host_fault_and_no_hang(packs, tokenizer):
    with fed(open_feed(packs, tokenizer)[2]) as feed:
        take(feed, 2)
        os.kill(pids(feed)[1], signal.SIGSEGV)
        with pytest.raises(HostFault, match=r"feed worker 2 of 2 \(process \d+\) was killed by SIGSEGV"):
            take(feed, 100)
        with pytest.raises(HostFault):
            next(feed)
        others = pids(feed)
    assert all(is_gone(pid) for pid in others)


def test_after_a_killed_worker_the_position_goes_on(packs, tokenizer):
    plain = iter(open_feed(packs, tokenizer)[2])
    with fed(open_feed(packs, tokenizer)[2]) as feed:
        for _ in range(3):
            assert same(next(feed), next(plain))
        os.kill(pids(feed)[0], signal.SIGKILL)
        with pytest.raises(HostFault):
            take(feed, 100)
        feed.set_state(feed.get_state())
        plain.set_state(feed.get_state())
        assert same(next(feed), next(plain))


def test_a_record_with_other_bytes_is_a_data_fault_whoever_reads_it(packs, tokenizer, tmp_path):
    cfg, sources, _ = open_feed(packs, tokenizer)
    broken = []
    for source in sources:
        files = []
        for file in source.files:
            copy = tmp_path / f"{source.name}-{Path(file).name}"
            shutil.copy(file, copy)
            files.append(str(copy))
        broken.append(replace(source, files=tuple(files)))
    data = bytearray(Path(broken[1].files[0]).read_bytes())
    at = data.index(b"\x28\xb5\x2f\xfd")  # the first record's zstd frame
    data[at + 12] ^= 0x40
    Path(broken[1].files[0]).write_bytes(data)
    broken[1].check()  # the number of records is still right
    for workers in (0, 2):
        with (
            fed(Batches(broken, tokenizer, cfg), workers) as feed,
            pytest.raises(DataFault, match=r"source en: record \d+ cannot be read"),
        ):
            take(feed, 100)


def test_what_a_worker_says_is_raised_as_what_it_is(packs, tokenizer, tmp_path):
    cfg, sources, _ = open_feed(packs, tokenizer)
    with (
        fed(Batches(sources, TextTokenizer(tmp_path), cfg), 1) as feed,
        pytest.raises(ConfigError, match="names no bos_token"),
    ):
        next(feed)
    with (
        fed(Batches(sources, tokenizer, replace(cfg, kind="chat")), 1) as feed,
        pytest.raises(RuntimeError, match="a feed worker stopped: KeyError: 'messages'"),
    ):
        next(feed)


def test_signals_for_the_trainer_do_not_end_its_workers(packs, tokenizer):
    with fed(open_feed(packs, tokenizer)[2]) as feed:
        take(feed, 1)
        for pid in pids(feed):
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)
        take(feed, 20)


TRAINER = """
import json, sys, time
from pathlib import Path
from tasks.tokens import TextTokenizer
from tasks.train.feed.batches import Batches, prefetched
from tasks.train.feed.sources import open_sources
from tasks.train.feed.streams import FeedConfig

pack, tokenizer, wait = sys.argv[1:]
cfg = FeedConfig("text", 64, 4, 2, 1)
sources = open_sources(Path(pack), json.loads((Path(pack) / "mixture.json").read_text()), 1)
first, second = (prefetched(Batches(sources, TextTokenizer(tokenizer), cfg), 2) for _ in range(2))
for feed in (first, second):
    next(feed)
print(*(worker._process.pid for feed in (first, second) for worker in feed._workers), flush=True)
if wait:
    time.sleep(600)
first.close()
"""


def trainer(packs, tokenizer, wait):
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(TRAINER)]
    return subprocess.Popen(
        [*command, packs["text"].local_dir(), tokenizer.path, wait],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_workers_die_with_a_trainer_that_is_killed(packs, tokenizer):
    with trainer(packs, tokenizer, "wait") as child:
        found = [int(pid) for pid in child.stdout.readline().split()]
        assert len(found) == 4
        child.kill()
    assert all(is_gone(pid) for pid in found)


def test_a_trainer_that_ends_leaves_nothing_behind_and_says_nothing(packs, tokenizer):
    """One of its feeds is closed, the other just left."""
    with trainer(packs, tokenizer, "") as child:
        out, said = child.communicate(timeout=300)
        assert (child.returncode, said) == (0, "")
    assert all(is_gone(int(pid)) for pid in out.split())


def test_a_worker_loads_neither_jax_nor_grain():
    code = "import sys, tasks.train.feed.__main__; print({'jax', 'grain'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


ARRAYS = {
    "tokens_BT": np.arange(12, dtype=np.int32).reshape(3, 4),
    "weights_BT": np.linspace(0, 1, 6, dtype=np.float32).reshape(3, 2),
}


@given(st.integers(0, 1_000))
def test_half_a_frame_is_no_frame(cut):
    pipe = io.BytesIO()
    write_frame(pipe, {"states": [{"at": 1}]}, ARRAYS)
    whole = pipe.getvalue()
    cut %= len(whole)
    twice = io.BytesIO(whole + whole[:cut])
    header, rows = read_frame(twice)
    assert header == {"states": [{"at": 1}]}
    assert same(rows, ARRAYS)
    assert read_frame(twice) is None
