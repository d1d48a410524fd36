"""What a trainer knows of the others; what they do together is in launchers/test_processes.py."""

import jax.numpy as jnp

from tasks.train import hosts
from tasks.train.hosts import Agreement, as_first, error_file, host_here, meet
from tests.tasks.train.nano import nano_spec


def test_a_trainer_alone_needs_nobody(monkeypatch):
    monkeypatch.delenv(hosts.HOSTS, raising=False)
    monkeypatch.delenv(hosts.HOST, raising=False)
    meet()
    hosts.part()
    assert host_here() == 0
    assert as_first([3, 0, 7]) == [3, 0, 7]
    agreed = Agreement(None)
    assert [agreed(told, jnp.zeros(())) for told in (False, True, False)] == [False, True, False], "at once"


def test_only_the_first_writes_where_all_look(tmp_path, text_pack):
    spec = nano_spec(tmp_path, text_pack)
    assert error_file(spec, 0) == spec.error
    assert error_file(spec, 3).name == "error-3.json"
