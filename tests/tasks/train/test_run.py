"""A run goes on with the very files it began with, or not at all."""

import shutil

import pytest

from tasks.errors import ConfigError, DataFault, Preempted
from tasks.train.trainer import train
from tests.tasks.train.nano import nano_spec
from tests.tasks.training_data import document, make_pack


def stopped(run_dir, data, **changes):
    """A run of which some steps are done."""
    spec = nano_spec(run_dir, data, **changes)
    calls = iter([False] * 3 + [True])
    with pytest.raises(Preempted):
        train(spec, lambda: next(calls))
    return spec


def copied(spec, to):
    """The same run with data and tokenizer of its own, which a test may change."""
    roots = {"data": spec.data_dir, "tokenizer": spec.tokenizer_dir}
    for name, root in roots.items():
        shutil.copytree(root, to / name)
    moved = [
        file.model_copy(update={"path": to / name / file.path.relative_to(root)})
        for file in spec.files
        for name, root in roots.items()
        if file.path.is_relative_to(root)
    ]
    assert len(moved) == len(spec.files) > 3
    return spec.model_copy(update={"data_dir": to / "data", "tokenizer_dir": to / "tokenizer", "files": tuple(moved)})


CHANGES = {
    "a letter of the tokenizer": ("tokenizer.json", lambda data: data.replace(b"quick", b"quicK", 1), "not the same"),
    "a longer tokenizer": ("tokenizer.json", lambda data: data + b" ", "bytes, it had"),
    "a digit of the mixture": ("mixture.json", lambda data: data.replace(b"0.6", b"0.7", 1), "not the same"),
    "records cut short": ("records/ja/00000.arrayrecord", lambda data: data[:-1], "bytes, it had"),
    "records gone": ("records/ja/00000.arrayrecord", None, "is gone"),
}


@pytest.fixture(scope="module")
def half_done(tmp_path_factory, text_pack):
    return stopped(tmp_path_factory.mktemp("half"), text_pack)


@pytest.mark.parametrize("what", CHANGES)
def test_a_file_that_changed_between_two_starts_is_refused(tmp_path, half_done, what):
    name, change, said = CHANGES[what]
    spec = copied(half_done, tmp_path)
    spec.check_files()
    (path,) = [file.path for file in spec.files if file.path.as_posix().endswith(name)]
    before = path.read_bytes()
    if change is None:
        path.unlink()
    else:
        assert change(before) != before
        path.write_bytes(change(before))
    with pytest.raises(DataFault, match=rf"{path.name}.*{said}") as caught:
        train(spec, lambda: False)
    assert len(str(caught.value)) < 1000, "one screen"


def test_other_records_or_another_tokenizer_under_the_same_run_are_refused(tmp_path, text_pack, tokenizer_artifact):
    stopped(tmp_path / "run", text_pack)
    other = make_pack(tmp_path, tokenizer_artifact, {"ja": [document(f"one two three {i}") for i in range(70)]})
    with pytest.raises(ConfigError, match=r"a run of something else \(data: [0-9a-f]{64} -> [0-9a-f]{64}\)"):
        train(nano_spec(tmp_path / "run", other), lambda: False)
