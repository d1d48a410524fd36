"""What starts trainers, by the name that a config gives."""

from tasks.train.launcher import Launcher
from tasks.train.launchers.jobset import JobSetLauncher
from tasks.train.launchers.local import LocalLauncher
from tasks.train.launchers.processes import ProcessesLauncher

LAUNCHERS: dict[str, Launcher] = {
    "local": LocalLauncher(),
    "processes": ProcessesLauncher(),
    "jobset": JobSetLauncher(),
}
