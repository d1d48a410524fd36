"""Every flow, in the order in which the factory runs them."""

from collections.abc import Mapping

from flows import (
    classify,
    cpt,
    distill,
    eval,
    factory,
    ingest,
    instruct,
    pack,
    preflight,
    pretrain,
    release,
    sft,
    synth,
)
from flows.graph import FlowSpec

FLOWS: Mapping[str, FlowSpec] = {
    "ingest": ingest.SPEC,
    "classify": classify.SPEC,
    "synth": synth.SPEC,
    "pack": pack.SPEC,
    "pretrain": pretrain.SPEC,
    "cpt": cpt.SPEC,
    "distill": distill.SPEC,
    "instruct": instruct.SPEC,
    "sft": sft.SPEC,
    "eval": eval.SPEC,
    "release": release.SPEC,
    "preflight": preflight.SPEC,
    "factory": factory.SPEC,
}
