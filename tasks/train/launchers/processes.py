"""Several trainers on one machine, joined over loopback: what a pod does, where it can be tried and broken."""

import logging
import os
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tasks.errors import HostFault
from tasks.train.hosts import COORDINATOR, HOST, HOSTS, error_file
from tasks.train.launcher import Follow
from tasks.train.launchers.ends import End, decisive
from tasks.train.launchers.local import POLL_S, TRAINER, start, stop
from tasks.train.run import RunSpec

log = logging.getLogger(__name__)

LINGER_S = 10.0  # for the others to end by themselves when one has ended
NEVER_S = 10**6  # XLA's own patience, so that it is the watchdog who decides


class ProcessesLauncher:
    """One process for each of `hosts`, each with its part of the devices of the mesh. They end together."""

    def __init__(self, command: Sequence[str] = TRAINER):
        self._command = tuple(command)

    def run(self, spec: RunSpec, run_json: Path, follow: Follow) -> int:
        hosts = spec.config.hosts
        spec.error.unlink(missing_ok=True)
        everyone = _variables(spec, hosts)
        children: list[subprocess.Popen[bytes]] = []
        try:
            for host in range(hosts):
                children.append(start(self._command, spec, run_json, everyone | {HOST: str(host)}))
            ends = _wait(children, follow)
        except BaseException:
            stop(children, spec.config.grace_s)
            raise
        finally:
            follow()
        end = decisive(ends)
        if end.host and (said := error_file(spec, end.host)).exists():
            os.replace(said, spec.error)
        return end.code


def _wait(children: "Sequence[subprocess.Popen[bytes]]", follow: Follow) -> list[End]:
    """The ends of all; when one has ended and the others do not follow, they are killed: they wait for it for ever."""
    ends: dict[int, End] = {}
    while len(ends) < len(children):
        follow()
        for host, child in enumerate(children):
            if host not in ends and child.poll() is not None:
                assert child.returncode is not None
                ends[host] = End(host, child.returncode, time.monotonic())
        if ends and time.monotonic() > min(end.at_s for end in ends.values()) + LINGER_S:
            for host, child in enumerate(children):
                if host not in ends:
                    log.warning("trainer %s does not follow the others' end (process %s): killed", host, child.pid)
                    child.kill()
                    child.wait()
                    ends[host] = End(host, HostFault.exit_code, time.monotonic())  # not its own doing
        time.sleep(POLL_S)
    return list(ends.values())


def _variables(spec: RunSpec, hosts: int) -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = (
        os.environ.get("XLA_FLAGS", ""),
        f"--xla_force_host_platform_device_count={spec.config.mesh.to_model().num_devices // hosts}",
        f"--xla_cpu_collective_call_terminate_timeout_seconds={NEVER_S}",
        f"--xla_cpu_collective_timeout_seconds={NEVER_S}",
    )
    return {COORDINATOR: f"127.0.0.1:{port}", HOSTS: str(hosts), "XLA_FLAGS": " ".join(filter(None, flags))}
