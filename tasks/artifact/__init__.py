"""Artifacts: what stages make, find again and verify. The names that stages need; the rest is in the modules."""

from tasks.artifact.finished import Artifact, DamagedArtifact, open_artifact
from tasks.artifact.ledger import ConservationError, StoreFull
from tasks.artifact.manifest import Counts, FileEntry, Manifest, ParentRef, UnitRecord
from tasks.artifact.stage import Stage, produce
from tasks.artifact.workspace import Unit, Workspace

__all__ = [
    "Artifact",
    "ConservationError",
    "Counts",
    "DamagedArtifact",
    "FileEntry",
    "Manifest",
    "ParentRef",
    "Stage",
    "StoreFull",
    "Unit",
    "UnitRecord",
    "Workspace",
    "open_artifact",
    "produce",
]
