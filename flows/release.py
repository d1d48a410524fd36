"""A model and its evaluation to a directory that can be published, served and loaded anywhere."""

from prefect import flow

from flows.changes import changes_model
from flows.graph import FlowSpec, Outputs, Resolver, Step
from flows.presets import RELEASE, ReleasePreset
from flows.runner import run_flow
from tasks.release.config import ReleaseConfig
from tasks.release.release import RELEASE as RELEASE_STAGE
from tasks.release.task import release_model


def build(resolver: Resolver, preset: str, config: ReleaseConfig) -> Outputs:
    """One released directory, proved against transformers and vLLM."""
    return {"main": Step(preset, RELEASE_STAGE, release_model, config, resolver.parents(config))}


SPEC = FlowSpec("release", RELEASE, build)


class ReleaseChanges(changes_model(ReleaseConfig, RELEASE)):
    """Blank fields keep the preset's value."""


@flow(name="release")
def release(preset: ReleasePreset = ReleasePreset.TINY, changes: ReleaseChanges = ReleaseChanges()) -> dict[str, str]:
    """Release a model.

    Args:
        preset: A row of flows/presets.py.
        changes: Knobs to change; blank keeps the preset's value.
    """
    return run_flow(SPEC.name, preset, changes)
