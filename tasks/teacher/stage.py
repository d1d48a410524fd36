"""The stage: fetch, verify, convert, and keep the licence texts beside the weights."""

from tasks.artifact import Artifact, Stage, Workspace
from tasks.licences import licence, text_of
from tasks.progress import track
from tasks.teacher.config import TeacherConfig
from tasks.teacher.convert import convert
from tasks.teacher.download import fetch

UNIT = "model"


def prepare(workspace: Workspace, config: TeacherConfig, inputs: dict[str, Artifact]) -> None:
    """Write `model/` (a Hugging Face directory), `notices/` and `teacher.json`; one row is one model.

    Raises:
        ConfigError: the model's terms were not accepted, or its licence is not in the table.
        HostFault: a package could not be fetched.
        DataFault: the file is not the one that was pinned.
    """
    config.check_machine()
    terms = licence(config.licence)
    if workspace.unit_record(UNIT) is None:
        with workspace.unit(UNIT) as unit, track(f"teacher {config.model_name}", 2, unit="parts") as bar:
            fetched = fetch(config)
            bar.advance(1)
            target = unit.local_file("model/config.json").parent
            facts = convert(fetched.gguf, target)
            for file in target.iterdir():
                unit.local_file(f"model/{file.name}")  # announced: the unit takes it over
            notices = fetched.notices | ({terms.text: text_of(terms.text)} if terms.text else {})
            for name, text in sorted(notices.items()):
                unit.write_bytes(f"notices/{name}", text)
            unit.write_json(
                "teacher.json",
                {
                    "name": config.model_name,
                    "licence": config.licence,
                    "chat": config.chat,
                    "max_seq_len": facts["max_position_embeddings"],
                    "packages": list(config.packages),
                    "gguf_sha256": config.gguf_sha256,
                },
            )
            unit.count(1, 1)
            bar.advance(1)
    workspace.note(licences=config.licence, teachers=config.model_name)


TEACHER = Stage(
    name="teacher",
    version="1",
    run=prepare,
    code=(
        "tasks.teacher.stage",
        "tasks.teacher.convert",
        "tasks.teacher.vocabulary",
        "tasks.teacher.download",
        "model.gguf",
        "model.safetensors",
    ),
)
