"""Knobs of the preflight stage."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.config import StageConfig
from tasks.preflight.compiler import find_libtpu
from tasks.preflight.interruptions import Interruptions
from tasks.preflight.slices import POWER_SOURCE, PRICE_SOURCE, Slice


class TrainedStep(BaseModel):
    """The optimizer step of a training run, and how many of them there are."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str = Field(description="family/size, for example gemma2/27b.")
    vocab_size: int = Field(default=0, ge=0, description="Rows of the table; 0 = the size's published number.")
    seq_len: int = Field(gt=1, description="Tokens in one row.")
    rows: int = Field(ge=1, description="Rows in one optimizer step, over all devices.")
    accumulate: int = Field(default=1, ge=1, description="Parts of a batch computed one after another.")
    total_tokens: int | None = Field(default=None, description="Tokens of the whole run; none = not known yet.")
    save_every_steps: int | None = Field(default=None, ge=1, description="Steps between checkpoints.")
    mesh: dict[str, int] = Field(description="Devices along each mesh axis.")
    compute: dict[str, Any] = Field(description="Fields of model.config.ComputeConfig.")
    optimizer: dict[str, Any] = Field(description="Fields of model.config.OptimizerConfig.")
    lora: dict[str, Any] | None = Field(default=None, description="Fields of model.config.LoraConfig; none without.")

    @property
    def batch_parts(self) -> int:
        """Parts that the devices cut a batch into."""
        return self.mesh.get("data", 1) * self.mesh.get("fsdp", 1) * self.mesh.get("expert", 1)

    @property
    def rows_at_once(self) -> float:
        """Rows that a device computes at the same time."""
        return self.rows / self.batch_parts / self.accumulate

    def variant(self, *, rows_at_once: int, remat: str) -> Self:
        """The same step with so many rows of a device at the same time.

        The batch stays what it is where its rows can be taken in such parts; otherwise it becomes one such part.
        """
        per_device, rest = divmod(self.rows, self.batch_parts)
        whole = rest == 0 and per_device % rows_at_once == 0
        return self.model_copy(
            update={
                "rows": self.rows if whole else rows_at_once * self.batch_parts,
                "accumulate": per_device // rows_at_once if whole else 1,
                "compute": self.compute | {"remat": remat},
            }
        )


class PreflightConfig(StageConfig):
    """What a training run would need and cost on a slice, from a compile of its real step."""

    run: str = Field(description="The training run, FLOW/PRESET, for example cpt/27b.")
    slice: str = Field(
        default="", description="Generation and chips, for example v6e:16x16; blank = what the run's `needs` names."
    )
    step: TrainedStep | None = Field(default=None, description="The step to compile; blank = that of the run.")

    compiler: str = Field(default="", description="Versions of JAX and libtpu; blank = what is installed here.")

    search: bool = Field(default=True, description="Also look for the largest batch and the best remat policy.")
    search_rows: int = Field(default=8, ge=1, description="Most rows of a device at a time that the search tries.")
    search_compiles: int = Field(default=12, ge=1, description="Most programs that the search compiles.")

    attention_efficiency: float = Field(
        default=0.35, gt=0, le=1, description="Part of peak FLOP/s that attention kernels reach; XLA has no estimate."
    )
    attention_efficiency_low: float = Field(default=0.25, gt=0, le=1, description="The same, for the low MFU.")
    attention_efficiency_high: float = Field(default=0.5, gt=0, le=1, description="The same, for the high MFU.")
    ring_links: int = Field(default=2, ge=1, description="Links that a collective on the SparseCore uses at once.")
    collective_latency_s: float = Field(default=1e-4, ge=0, description="Of each asynchronous collective (a guess).")

    usd_per_chip_hour: float | None = Field(default=None, ge=0, description="None = the table's price of the chip.")
    price_source: str = Field(default=PRICE_SOURCE, description="Where the price comes from, and when.")
    watts_per_chip: float | None = Field(default=None, ge=0, description="None = the table's assumption for the chip.")
    power_source: str = Field(default=POWER_SOURCE, description="Where the watts come from.")
    interruptions: Interruptions = Field(
        default=Interruptions(), description="How often the slice is taken away; for goodput and the best interval."
    )

    pue: float = Field(default=1.09, ge=1, description="Power of the data centre over that of its machines.")
    grams_co2e_per_kwh: float = Field(default=400.0, ge=0, description="Of the grid; 400 is about a world mean.")

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        if self.slice:
            Slice.parse(self.slice)
        if not self.attention_efficiency_low <= self.attention_efficiency <= self.attention_efficiency_high:
            raise ValueError(
                f"attention_efficiency={self.attention_efficiency} is outside {self.attention_efficiency_low} to "
                f"{self.attention_efficiency_high}: the range of MFU is around it. Change the bounds with it."
            )
        return self

    def check_machine(self) -> None:
        """Stop at once where the compiler is not installed."""
        find_libtpu()
