"""Copies of checkpoints in another store: whole or absent, whatever the store and the network do."""

import json
import threading
import uuid
from pathlib import Path

import pytest

from model.checkpoint import CheckpointError
from tasks.errors import DataFault, HostFault
from tasks.storage import LocalStorage, storage_for
from tasks.train.remote import Remote, StoppedError
from tests.tasks.fake_gcs import Bucket
from tests.tasks.train.nano import files

HISTORY = '{"step":7}\n'
FILES = {"state/d/ab12": b"x" * 5000, "state/manifest.ocdbt": b"m" * 90, "record/metadata": b"{}", "empty": b""}


pytestmark = pytest.mark.usefixtures("hurried")


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return write(tmp_path / "checkpoints" / "7", FILES)


def write(directory: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return directory


@pytest.fixture
def bucket(gcs: Bucket):
    """A remote in a bucket that can be made to misbehave."""
    yield Remote(f"gs://bucket-{uuid.uuid4().hex[:12]}/runs", patience_s=20)
    gcs.outage, gcs.read_only, gcs.delay_s = 0, False, 0.0


def test_what_was_uploaded_is_fetched_byte_for_byte(any_store, checkpoint, tmp_path):
    remote = Remote(any_store, 5)
    assert (remote.steps(), remote.newest()) == ([], 0)
    remote.upload(7, checkpoint, HISTORY)
    remote.upload(7, checkpoint, HISTORY)
    remote.confirm(7)
    assert (remote.steps(), remote.newest()) == ([7], 7)
    assert files(checkpoint) == FILES, "the copy here stays"
    target = tmp_path / "elsewhere" / "7"
    assert Remote(any_store, 5).fetch(7, target) == HISTORY
    assert files(target) == FILES
    assert [path.name for path in target.parent.iterdir()] == ["7"]
    remote.delete(7)
    assert remote.steps() == []


class Dies(BaseException):
    pass


def test_an_upload_that_dies_at_any_write_is_no_checkpoint_and_can_be_done_again(checkpoint, tmp_path, monkeypatch):
    writes = 0
    for name in ("upload", "write"):
        original = getattr(LocalStorage, name)

        def counted(self, url, source, original=original):
            nonlocal writes
            if writes == 0:
                raise Dies
            writes -= 1
            original(self, url, source)

        monkeypatch.setattr(LocalStorage, name, counted)
    for at in range(len(FILES) + 2):
        url = str(tmp_path / f"remote-{at}")
        writes = at
        with pytest.raises(Dies):
            Remote(url, 5).upload(7, checkpoint, HISTORY)
        writes = 99
        remote = Remote(url, 5)
        assert remote.steps() == []
        with pytest.raises(CheckpointError, match="no manifest"):
            remote.fetch(7, tmp_path / "fetched")
        if at % 2:
            remote.sweep()
            assert list(Path(url).glob("[0-9]*")) == []
        write(checkpoint, {"state/d/ab12": bytes([at]) * 5000})  # the step was made again meanwhile
        remote.upload(7, checkpoint, HISTORY)
        assert remote.fetch(7, tmp_path / f"fetched-{at}") == HISTORY
        assert files(tmp_path / f"fetched-{at}") == files(checkpoint)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", ["checkpoint/state/d/ab12", "checkpoint/record/metadata", "metrics.jsonl"])
@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_a_damaged_copy_is_refused(checkpoint, tmp_path, name, damage):
    remote = Remote(str(tmp_path / "remote"), 5)
    remote.upload(7, checkpoint, HISTORY)
    damage(tmp_path / "remote" / "7" / name)
    with pytest.raises(CheckpointError, match=rf"{name} .*its manifest says.*damaged"):
        remote.fetch(7, tmp_path / "elsewhere" / "7")
    assert not (tmp_path / "elsewhere" / "7").exists()
    remote.upload(7, checkpoint, HISTORY)


def test_no_bit_of_a_manifest_can_make_other_bytes_pass(checkpoint, tmp_path):
    remote = Remote(str(tmp_path / "remote"), 5)
    remote.upload(7, checkpoint, HISTORY)
    manifest = tmp_path / "remote" / "7" / "MANIFEST.json"
    whole = manifest.read_bytes()
    for at in range(0, len(whole), 7):
        manifest.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        target = tmp_path / f"target-{at}"
        try:
            assert remote.fetch(7, target) == HISTORY
        except CheckpointError:
            continue
        assert files(target) == FILES  # the bit was in a blank


def test_503_for_a_while_only_takes_longer(bucket, gcs, checkpoint, tmp_path):
    gcs.outage = 20  # three times as many as gcsfs itself bears
    bucket.upload(7, checkpoint, HISTORY)
    assert gcs.outage == 0
    assert bucket.fetch(7, tmp_path / "7") == HISTORY


def test_503_for_longer_than_the_patience_is_a_host_fault_and_leaves_no_checkpoint(gcs, checkpoint):
    remote = Remote(f"gs://bucket-{uuid.uuid4().hex[:12]}/runs", patience_s=0.3)
    gcs.outage = 10**6
    with pytest.raises(HostFault, match=r"did not answer for 0 s.*503.*confirm_within_s"):
        remote.upload(7, checkpoint, HISTORY)
    gcs.outage = 0
    assert remote.steps() == []


def test_a_store_that_may_not_be_written_is_said_at_once(bucket, gcs, checkpoint):
    gcs.read_only = True
    before = len(gcs.log)
    with pytest.raises(HostFault, match=r"refused \(upload\).*Forbidden.*Mend the permissions"):
        bucket.upload(7, checkpoint, HISTORY)
    posts = [line for line in gcs.log[before:] if line.startswith('"POST')]
    assert len(posts) == 1
    gcs.read_only = False
    assert bucket.steps() == []


@pytest.mark.parametrize(
    ("error", "is_transient"),
    [
        pytest.param(OSError(5, "Input/output error"), True, id="a network disk is away"),
        pytest.param(OSError(30, "Read-only file system"), False, id="read-only"),
        pytest.param(OSError(28, "No space left on device"), False, id="full"),
        pytest.param(PermissionError(13, "Permission denied"), False, id="not permitted"),
        pytest.param(TypeError("x"), False, id="a fault of ours"),
    ],
)
def test_only_what_may_pass_by_itself_is_tried_again(tmp_path, error, is_transient):
    assert storage_for(str(tmp_path)).is_transient(error) is is_transient


def test_a_wait_for_the_store_ends_when_the_trainer_does(bucket, gcs, checkpoint):
    gcs.outage = 10**6
    threading.Timer(0.2, bucket.stop).start()
    with pytest.raises(StoppedError):
        bucket.upload(7, checkpoint, HISTORY)


def test_a_ledger_that_cannot_be_read_is_not_taken_for_none(tmp_path, checkpoint):
    remote = Remote(str(tmp_path / "remote"), 5)
    remote.upload(7, checkpoint, HISTORY)
    remote.confirm(7)
    (tmp_path / "remote" / "NEWEST.json").write_text(json.dumps({"stop": 7}))
    with pytest.raises(DataFault, match=r"steps \[7\]"):
        remote.newest()
