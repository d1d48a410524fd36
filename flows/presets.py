"""The table of runs: flow x preset -> config. Every number of a run lives here, and nowhere in prefect.yaml.

Above each row: hardware, duration, what to expect. `tiny` was measured on 2 cores and 24 GiB without accelerator.
"""

from enum import StrEnum

from flows.configs import (
    ClassifyFlowConfig,
    DistillFlowConfig,
    IngestConfig,
    InstructFlowConfig,
    PackFlowConfig,
    SynthFlowConfig,
)
from flows.corpora import CPT_DOCUMENTS, CPT_SOURCES, HELDOUT, NO_ITEMS, TINY_CORPORA
from flows.gemma2 import gemma2_cpt, gemma2_sft
from flows.teachers import GEMMA, GEMMA3_270M, SMOLLM2
from tasks.classify.config import AnnotateConfig, ClassifierConfig, ContrastConfig, CutConfig, ScoreConfig, Side
from tasks.eval.config import EvalConfig
from tasks.instruct.config import InstructConfig, InstructGates
from tasks.pack.config import PackConfig, SourceShare, TokenizerConfig
from tasks.preflight.config import PreflightConfig
from tasks.release.config import ReleaseConfig
from tasks.report.config import ReportConfig
from tasks.synth.config import SynthConfig
from tasks.teach.config import TeachConfig
from tasks.train.config import TrainConfig


class IngestPreset(StrEnum):
    TINY = "tiny"


class ClassifyPreset(StrEnum):
    TINY = "tiny"
    TINY_RUBRIC = "tiny-rubric"


class SynthPreset(StrEnum):
    TINY = "tiny"


class PackPreset(StrEnum):
    TINY = "tiny"


class PretrainPreset(StrEnum):
    TINY = "tiny"


class CptPreset(StrEnum):
    TINY = "tiny"
    B2 = "2b"
    B9 = "9b"
    B27 = "27b"


class DistillPreset(StrEnum):
    TINY = "tiny"


class InstructPreset(StrEnum):
    TINY = "tiny"


class SftPreset(StrEnum):
    TINY = "tiny"
    B2 = "2b"
    B9 = "9b"
    B27 = "27b"


class EvalPreset(StrEnum):
    TINY = "tiny"
    NIGHTLY = "nightly"


class ReleasePreset(StrEnum):
    TINY = "tiny"


class PreflightPreset(StrEnum):
    TINY = "tiny"
    CPT_2B = "cpt-2b"
    CPT_9B = "cpt-9b"
    CPT_27B = "cpt-27b"
    SFT_2B = "sft-2b"
    SFT_9B = "sft-9b"
    SFT_27B = "sft-27b"


class FactoryPreset(StrEnum):
    TINY = "tiny"


# ------------------------------------------------------------------------------------------------------------ ingest

INGEST: dict[IngestPreset, IngestConfig] = {
    # 2 cores, about a minute: some 7,000 pages, 14 MB of text kept.
    IngestPreset.TINY: IngestConfig(corpora=TINY_CORPORA),
}

# ---------------------------------------------------------------------------------------------------------- classify

CLASSIFY: dict[ClassifyPreset, ClassifyFlowConfig] = {
    # 2 cores, some seconds. Manuals written as books against short help pages; with real pages, positives are academic
    # articles of Wikipedia and negatives the crawl itself.
    ClassifyPreset.TINY: ClassifyFlowConfig(
        contrast=ContrastConfig(
            documents=("ingest/tiny:ja",),
            positives=(Side(input=0, sources=("debian-manuals-ja", "harden-doc-ja", "live-manual-ja")),),
            negatives=(Side(input=0, sources=("libreoffice-help-ja",), max_documents=1_000),),
        ),
        classifier=ClassifierConfig(examples=":examples"),
        score=ScoreConfig(documents="ingest/tiny:ja", classifier=":classifier", group_by="source"),
        cut=CutConfig(documents="ingest/tiny:ja", scores=":scores", per="all"),
    ),
    # 2 cores, half a minute with the server's start: the rubric end to end. The teacher is far too small to judge.
    ClassifyPreset.TINY_RUBRIC: ClassifyFlowConfig(
        annotate=AnnotateConfig(
            documents="ingest/tiny:en",
            teacher="synth/tiny:teacher-smollm2",
            language="en",
            max_documents=200,
            heldout_fraction=0.3,
            justify=False,
            min_yield=0.05,
        ),
        classifier=ClassifierConfig(examples=":examples", min_ngram=0, max_ngram=0, word_ngrams=2, min_auc=0.0),
        score=ScoreConfig(documents="ingest/tiny:en", classifier=":classifier", group_by="source"),
        cut=CutConfig(documents="ingest/tiny:en", scores=":scores"),
    ),
}

# ------------------------------------------------------------------------------------------------------------- synth

SYNTH: dict[SynthPreset, SynthFlowConfig] = {
    # 2 cores, 3 to 4 minutes with the start of two servers: 520 requests to teachers that are far too small; five of
    # six answers are rejected.
    SynthPreset.TINY: SynthFlowConfig(
        teachers={"smollm2": SMOLLM2} | ({"gemma3-270m": GEMMA3_270M} if GEMMA else {}),
        recipes={
            # `qa` and `code_rewrite` are the published recipes: 6 % and 0 % of SmolLM2's answers to them pass.
            "qa-en": SynthConfig(
                documents="ingest/tiny:en",
                teacher=":teacher-smollm2",
                recipe="question",
                language="en",
                max_requests=240,
                chunks_per_document=1,
                preview_requests=120,  # of 32 answers of this teacher one or none is good now and then
                min_yield=0.02,
            ),
            "code": SynthConfig(
                documents="ingest/tiny:python",
                teacher=":teacher-smollm2",
                recipe="code_document",
                language="python",
                max_requests=120,
            ),
        }
        | (
            {
                "qa-ja": SynthConfig(
                    documents="ingest/tiny:ja",
                    teacher=":teacher-gemma3-270m",
                    recipe="question",
                    language="ja",
                    max_requests=160,
                    chunks_per_document=2,
                    preview_requests=160,
                    min_yield=0.01,
                )
            }
            if GEMMA
            else {}
        ),
        decontaminate=NO_ITEMS.with_changes({"heldout": HELDOUT}),
    ),
}

# -------------------------------------------------------------------------------------------------------------- pack

PACK: dict[PackPreset, PackFlowConfig] = {
    # 2 cores, 20 s.
    PackPreset.TINY: PackFlowConfig(
        tokenizer=TokenizerConfig(
            documents=("ingest/tiny:ja", "ingest/tiny:en", "ingest/tiny:python"),
            vocab_size=8_192,
            sample_bytes=2_000_000,
        ),
        mixtures={
            "pretrain": PackConfig(
                documents=("ingest/tiny:en",),
                tokenizer=":tokenizer",
                kind="text",
                sources=(SourceShare(name="en", language="en", input=0, max_epochs=3),),
                total_tokens=800_000,
            ),
            "cpt": PackConfig(
                documents=CPT_DOCUMENTS,
                tokenizer=":tokenizer",
                kind="text",
                sources=CPT_SOURCES,
                total_tokens=800_000,
                on_shortfall="spread",
            ),
        },
    ),
}

# ------------------------------------------------------------------------------------------------------------- train

PRETRAIN: dict[PretrainPreset, TrainConfig] = {
    # 2 cores, 3 minutes. It stands for the open base model, so English only. On 0.8 M tokens: 2.61 Japanese bits
    # per byte, 1.62 English ones.
    PretrainPreset.TINY: TrainConfig(
        data="pack/tiny:pretrain",
        model="gemma2/tiny",
        kind="next_token",
        seq_len=512,
        batch_tokens=4_096,
        epochs=1,
        peak_lr=3e-3,
        warmup_fraction=0.05,
        streams=8,
        dtype="bfloat16",
        save_every_steps=100,
    ),
}


CPT: dict[CptPreset, TrainConfig] = {
    # 2 cores, 3 minutes. On 0.8 M tokens Japanese bits per byte fell by 54 % to 1.21, English ones rose by 1.4 %.
    CptPreset.TINY: TrainConfig(
        data="pack/tiny:cpt",
        base="pretrain/tiny",
        model="gemma2/tiny",
        kind="next_token",
        seq_len=512,
        batch_tokens=4_096,
        epochs=1,
        peak_lr=2e-3,
        warmup_fraction=0.05,
        streams=8,
        dtype="bfloat16",
        save_every_steps=100,
    ),
    # v6e-64. Published result after 209.7 B tokens: Japanese average 0.421, English 0.426.
    CptPreset.B2: gemma2_cpt("2b", 2.5e-5, 64),
    # v6e-64. Published result: Japanese average 0.558, English 0.595.
    CptPreset.B9: gemma2_cpt("9b", 2.5e-5, 64),
    # v6e-256. Published result: Japanese average 0.594, English 0.665.
    CptPreset.B27: gemma2_cpt("27b", 1.5e-5, 256),
}

DISTILL: dict[DistillPreset, DistillFlowConfig] = {
    # 2 cores: 5 to 6 minutes for the teacher beside other work, then as long as cpt. The continued model teaches the
    # base that it came from, so the two can be compared.
    DistillPreset.TINY: DistillFlowConfig(
        teach=TeachConfig(data="pack/tiny:cpt", model="cpt/tiny", words=16),
        train=CPT[CptPreset.TINY].with_changes({"taught": ":taught"}),
    ),
}

# ---------------------------------------------------------------------------------------------------------- instruct

INSTRUCT: dict[InstructPreset, InstructFlowConfig] = {
    # 2 cores, 3 to 4 minutes. A third of the English prompts and a quarter of the Japanese ones end as conversations.
    InstructPreset.TINY: InstructFlowConfig(
        recipes={
            "en": InstructConfig(
                teacher="synth/tiny:teacher-smollm2",
                language="en",
                num_prompts=400,
                temperature=0.8,
                top_p=0.9,
                max_prompt_tokens=48,
                max_answer_tokens=96,
                brief_answers=True,
                gates=InstructGates(allow_code_and_maths=False),
            )
        }
        | (
            {
                "ja": InstructConfig(
                    teacher="synth/tiny:teacher-gemma3-270m",
                    language="ja",
                    num_prompts=270,
                    temperature=0.8,
                    top_p=0.9,
                    max_prompt_tokens=32,
                    max_answer_tokens=48,
                    gates=InstructGates(min_prompt_chars=8, min_answer_chars=8),
                )
            }
            if GEMMA
            else {}
        ),
        decontaminate=NO_ITEMS.with_changes({"benchmarks": ("instructions", "continuation"), "heldout": HELDOUT}),
        pack=PackConfig(
            documents=(":en", *((":ja",) if GEMMA else ())),
            tokenizer="pack/tiny:tokenizer",
            kind="chat",
            sources=(
                SourceShare(name="magpie-en", language="en", input=0),
                *((SourceShare(name="magpie-ja", language="ja", input=1),) if GEMMA else ()),
            ),
            total_tokens=None,
        ),
    ),
}


SFT: dict[SftPreset, TrainConfig] = {
    # 2 cores, half a minute.
    SftPreset.TINY: TrainConfig(
        base="cpt/tiny",
        data="instruct/tiny",
        model="gemma2/tiny",
        kind="sft",
        seq_len=512,
        batch_tokens=4_096,
        epochs=6,
        peak_lr=7e-4,
        warmup_fraction=0.1,
        dtype="bfloat16",
        save_every_steps=25,
    ),
    # v6e-64 for 2B and 9B, v6e-256 for 27B. Rates: 2.5e-5 at 2B down to 1e-5 at 27B; 9B lies between.
    SftPreset.B2: gemma2_sft("2b", 2.5e-5, 64),
    SftPreset.B9: gemma2_sft("9b", 1.75e-5, 64),
    SftPreset.B27: gemma2_sft("27b", 1e-5, 256),
}

# -------------------------------------------------------------------------------------------------- eval and release

# Held-out conversations exist in the languages that a teacher wrote.
_INSTRUCTIONS = ("instructions:en", *(("instructions:ja",) if GEMMA else ()))

EVAL: dict[EvalPreset, EvalConfig] = {
    # 2 cores, about a minute.
    EvalPreset.TINY: EvalConfig(
        labels=("base", "cpt", "sft"),
        models=("pretrain/tiny", "cpt/tiny", "sft/tiny"),
        heldout=("ingest/tiny:ja", "ingest/tiny:en"),
        instructions="instruct/tiny",
        tasks=("bits_per_byte", "continuation", *_INSTRUCTIONS),
        languages=("ja", "en"),
        limits={"bits_per_byte": 48, "continuation": 48, "instructions": 16},
        max_document_chars=2_000,
    ),
    # The same models on everything that is held out, every night at 02:30 in Tokyo (prefect.yaml).
    EvalPreset.NIGHTLY: EvalConfig(
        labels=("base", "cpt", "sft"),
        models=("pretrain/tiny", "cpt/tiny", "sft/tiny"),
        heldout=("ingest/tiny:ja", "ingest/tiny:en"),
        instructions="instruct/tiny",
        tasks=("bits_per_byte", "continuation", *_INSTRUCTIONS),
        languages=("ja", "en"),
    ),
}

RELEASE: dict[ReleasePreset, ReleaseConfig] = {
    # 2 cores, a minute: transformers and vLLM must give the same greedy tokens.
    ReleasePreset.TINY: ReleaseConfig(
        model_name="Nestling-Tiny-ja", languages=("ja", "en"), model="sft/tiny", eval="eval/tiny"
    ),
}

FACTORY: dict[FactoryPreset, ReportConfig] = {
    # 2 cores, 18 minutes with set-up: everything above, and the page about it.
    FactoryPreset.TINY: ReportConfig(release="release/tiny", evaluation="eval/tiny"),
}

# --------------------------------------------------------------------------------------------------------- preflight

PREFLIGHT: dict[PreflightPreset, PreflightConfig] = {
    # One chip, no search: a minute of one core.
    PreflightPreset.TINY: PreflightConfig(run="cpt/tiny", search=False),
    # The published recipes, each on the slice that it needs: 5 to 10 minutes of one core for each program.
    PreflightPreset.CPT_2B: PreflightConfig(run="cpt/2b"),
    PreflightPreset.CPT_9B: PreflightConfig(run="cpt/9b"),
    PreflightPreset.CPT_27B: PreflightConfig(run="cpt/27b"),
    PreflightPreset.SFT_2B: PreflightConfig(run="sft/2b"),
    PreflightPreset.SFT_9B: PreflightConfig(run="sft/9b"),
    PreflightPreset.SFT_27B: PreflightConfig(run="sft/27b"),
}
