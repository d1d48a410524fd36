"""What a training run can be told."""

import glob
import os
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.config import ComputeConfig, LoraConfig, MeshConfig, OptimizerConfig
from model.families import decoder_config
from tasks.config import StageConfig, input_field, operational_field
from tasks.errors import ConfigError
from tasks.train.machines import JobSetConfig, machine


class MeshShape(BaseModel):
    """Devices along each mesh axis; their product is the number of devices of the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: int = Field(default=1, ge=1, description="Copies of the weights; each takes its part of the batch.")
    fsdp: int = Field(default=1, ge=1, description="Parts of each weight and of the optimizer state (ZeRO-3).")
    tensor: int = Field(default=1, ge=1, description="Parts of heads, mlp and vocabulary within a layer.")
    context: int = Field(default=1, ge=1, description="Parts of the length of a row; for rows too long for a device.")
    expert: int = Field(default=1, ge=1, description="Parts of the experts of a mixture; the batch is split along it.")
    stage: int = Field(default=1, ge=1, description="Parts of the depth (a pipeline); see microbatches.")

    def to_model(self) -> MeshConfig:
        """The same for `model/`."""
        return MeshConfig(**self.model_dump())


class TrainConfig(StageConfig):
    """One training run: pre-training, continued pre-training or supervised fine-tuning."""

    base: str = input_field("Model to start from (a train or teacher artifact); empty starts from random.", default="")
    data: str = input_field("Training records (a pack artifact).", default="")
    tokenizer: str = input_field("Tokenizer; empty takes the one that the records were counted with.", default="")

    taught: str = input_field(
        "What a teacher said of these records (a teach artifact); empty learns from the text alone.", default=""
    )

    model: str = Field(description="family/size, for example gemma2/27b; see model/families.")
    kind: Literal["next_token", "sft"] = Field(
        description="next_token learns every token of documents; sft learns the answers of conversations."
    )
    seq_len: int = Field(gt=1, description="Tokens in one row.")
    batch_tokens: int = Field(gt=0, description="Tokens in one optimizer step, over all devices.")
    total_tokens: int | None = Field(default=None, gt=0, description="Tokens in the whole run; or give epochs.")
    epochs: float | None = Field(
        default=None, gt=0, description="Times the mixture's whole budget; or give total_tokens."
    )
    peak_lr: float = Field(gt=0, lt=1, description="Learning rate after warm-up.")
    min_lr_fraction: float = Field(default=0.1, ge=0, le=1, description="Last learning rate as a fraction of peak_lr.")
    warmup_fraction: float = Field(default=0.0, ge=0, lt=1, description="Part of all steps in which the rate rises.")
    warmup_steps: int | None = Field(
        default=None, ge=0, description="Steps in which the rate rises; wins over the fraction."
    )
    schedule: Literal["cosine", "wsd", "constant"] = Field(
        default="cosine", description="Shape of the learning rate after warm-up; wsd stays and falls at the end."
    )
    decay_fraction: float = Field(default=0.2, gt=0, le=1, description="Part of all steps in which wsd falls.")
    beta2: float = Field(default=0.95, gt=0, lt=1, description="Decay of Adam's second moment, per step.")
    weight_decay: float = Field(default=0.1, ge=0, description="Decoupled weight decay, times the learning rate.")
    clip_norm: float = Field(default=1.0, ge=0, description="Global norm to which gradients are cut; 0 never cuts.")
    z_loss: float = Field(default=0.0, ge=0, description="Weight of logsumexp(logits)^2; PaLM used 1e-4.")
    loss_turns: Literal["all", "last"] = Field(
        default="all", description="sft: learn every answer of a conversation, or only its last."
    )
    neftune_alpha: float = Field(
        default=0.0, ge=0, description="sft: noise on embeddings, alpha / sqrt(tokens x width); 0 is none, 5 is usual."
    )
    teacher_weight: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="With taught: the teacher's part of every target; the rest is the token of the text.",
    )
    ema_decay: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Of a running mean of the weights, per step, which is then what is kept; 0 is none.",
    )
    lora_rank: int = Field(
        default=0, ge=0, description="Train adapters of this rank beside the frozen base; 0 trains every weight."
    )
    lora_alpha: float = Field(default=32.0, gt=0, description="Adapters are multiplied by lora_alpha / lora_rank.")
    lora_targets: tuple[Literal["query", "key", "value", "out", "gate", "up", "down"], ...] = Field(
        default=("query", "key", "value", "out", "gate", "up", "down"),
        min_length=1,
        description="Weights that have an adapter.",
    )
    skip_nonfinite: int = Field(
        default=0,
        ge=0,
        description="Steps whose loss or gradient is NaN or infinite that may be left out; one more stops.",
    )
    spike_factor: float = Field(
        default=0.0,
        ge=0,
        description="Robust deviations above the median of loss or gradient norm that are a spike; 0 finds none.",
    )
    spike_window: int = Field(default=128, ge=2, description="Steps of that median; before so many nothing is a spike.")
    skip_spikes: int = Field(default=0, ge=0, description="Spikes that may be left out; one more stops the run.")
    streams: int = Field(
        default=1, ge=1, description="Parts of the data packed apart; hosts share them, so it bounds their number."
    )
    tokenizer_engine: Literal["tokenizers", "fastokens"] = Field(
        default="tokenizers",
        description="What turns documents into ids; fastokens ([fast] extra) is faster and is compared at every start.",
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="Type of activations; weights and their moments stay float32."
    )
    quantization: Literal["none", "int8", "fp8"] = Field(
        default="none",
        description="Matrix products of attention and MLP in 8 bits, forward and backward; needs the [quant] extra.",
    )
    export_dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Type of the released weights.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Of initial weights, order of documents, and noise.")

    accumulate: int = operational_field("Parts of a batch computed one after another to save memory.", default=1, ge=1)
    microbatches: int = operational_field(
        "Parts that a device's rows are taken in on their way through the stages of mesh.stage; more wait less.",
        default=1,
        ge=1,
    )
    remat: Literal["none", "full", "outputs", "projections"] = operational_field(
        "What is computed again in the backward pass to save memory: nothing; each layer; all of it but the outputs of "
        "attention and MLP; all but these and queries, keys and values.",
        default="none",
    )
    attention: Literal["auto", "reference", "chunked", "splash"] = operational_field(
        "Kernel of attention; auto chooses by hardware and length.", default="auto"
    )
    mesh: MeshShape = operational_field("Devices of the run.", default=MeshShape())
    feed_workers: int | None = operational_field(
        "Processes of each host that read, tokenise and pack, at most one for each of its streams; 0 is a thread of "
        "the trainer, empty chooses by the number of cores.",
        default=None,
        ge=0,
    )
    needs: str = operational_field("Accelerator without which the run makes no sense, e.g. tpu v6e-256.", default="")
    launcher: Literal["local", "processes", "jobset"] = operational_field(
        "What starts the trainer: local is one process here, processes several here, jobset the pods of a TPU slice.",
        default="local",
    )
    hosts: int = operational_field(
        "launcher=processes: trainer processes, each with an equal part of the devices.", default=1, ge=1
    )
    jobset: JobSetConfig | None = operational_field("launcher=jobset: the cluster that has the machines.", default=None)
    step_timeout_s: float = operational_field(
        "Seconds without a finished step after which a trainer is taken for hung and started again.",
        default=600.0,
        gt=0,
    )
    save_every_steps: int = operational_field("Steps between checkpoints.", default=500, ge=1)
    remote: str = operational_field(
        "Where checkpoints are copied to, a URL or an absolute path; empty keeps them on this machine only.",
        default="",
    )
    remote_every_steps: int = operational_field(
        "Checkpoints at multiples of so many steps are copied to remote, and the one before a stop.", default=1, ge=1
    )
    confirm_within_s: float = operational_field(
        "Seconds in which a checkpoint must be whole everywhere; a later one stops the run.", default=1800.0, gt=0
    )
    keep: int = operational_field("Newest checkpoints to keep, here and in remote.", default=3, ge=1)
    keep_every_steps: int = operational_field(
        "Checkpoints at multiples of so many steps stay for good, in remote where there is one; 0 is none.",
        default=0,
        ge=0,
    )
    keep_best: int = operational_field(
        "Checkpoints with the highest scores (scores.jsonl in the run directory) to keep too.", default=0, ge=0
    )
    allow_rollback: bool = operational_field(
        "Resume from an older checkpoint when the newest is damaged or gone.", default=False
    )
    rollback_steps_budget: int = operational_field(
        "Steps that may be lost so over the whole run without allow_rollback.", default=0, ge=0
    )
    preempt_budget: int = operational_field(
        "Pre-emptions in a row without progress before giving up.", default=20, ge=0
    )
    fault_budget: int = operational_field(
        "Host faults or kills in a row without progress before giving up.", default=3, ge=0
    )
    log_every: int = operational_field("Steps between lines of the trainer's log.", default=10, ge=1)
    grace_s: float = operational_field("Seconds between a notice and the end of the machine.", default=30.0, gt=0)
    preemption_file: str = operational_field("A file whose appearance is a notice; empty watches none.", default="")
    page_every_s: float = operational_field("Seconds between renewals of the live page.", default=10.0, gt=0)
    tensorboard: bool = operational_field("Write TensorBoard files too; needs the [tensorboard] extra.", default=False)
    usd_per_device_hour: float | None = operational_field(
        "Price of a device; None counts no money.", default=None, ge=0
    )
    watts_per_device: float | None = operational_field("Power of a device; None counts no energy.", default=None, ge=0)

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        if (self.total_tokens is None) == (self.epochs is None):
            raise ValueError(
                f"total_tokens={self.total_tokens} and epochs={self.epochs}: the length of a run is said once. "
                "Give one of them and leave the other empty."
            )
        if self.batch_tokens % self.seq_len:
            raise ValueError(
                f"batch_tokens={self.batch_tokens:,} is not a multiple of seq_len={self.seq_len:,}: a batch is whole "
                f"rows. Use {max(1, self.batch_tokens // self.seq_len) * self.seq_len:,}."
            )
        for name, parts in (
            ("streams", self.streams),
            ("accumulate", self.accumulate),
            ("mesh", self._row_parts),
            ("mesh with accumulate and microbatches", self._row_parts * self.accumulate * self.microbatches),
        ):
            if self.rows % parts:
                raise ValueError(
                    f"{name} cuts {self.rows} rows (batch_tokens / seq_len) into {parts} parts: the parts must be "
                    f"equal. Use a divisor of {self.rows}, or change batch_tokens."
                )
        if self.kind == "sft" and self.tokenizer_engine != "tokenizers":
            raise ValueError(
                f"tokenizer_engine={self.tokenizer_engine!r} with kind='sft': what is learnt of a conversation is told "
                "by the place of each token in its text, which only tokenizers gives. Leave tokenizer_engine out."
            )
        if self.seq_len % self.mesh.context:
            raise ValueError(
                f"mesh.context={self.mesh.context} cuts rows of seq_len={self.seq_len:,}: every device holds an equal "
                "run of positions. Use a divisor of seq_len."
            )
        if self.total_tokens is not None and self.total_tokens < self.batch_tokens:
            raise ValueError(
                f"total_tokens={self.total_tokens:,} is less than one step of {self.batch_tokens:,}: nothing would be "
                "learnt. Use more tokens or a smaller batch_tokens."
            )
        longest = decoder_config(self.model).max_seq_len
        if self.seq_len > longest:
            raise ValueError(
                f"seq_len={self.seq_len:,} is longer than {self.model} is meant for ({longest:,}): positions beyond "
                f"it were never published. Use at most {longest:,}."
            )
        for name, unit in (
            ("remote_every_steps", "save_every_steps"),
            ("keep_every_steps", "remote_every_steps" if self.remote else "save_every_steps"),
        ):
            steps, base = getattr(self, name), getattr(self, unit)
            if steps > 1 and steps % base:
                raise ValueError(
                    f"{name}={steps} is not a multiple of {unit}={base}: only steps that are saved can be kept or "
                    f"copied. Use {max(1, steps // base) * base}."
                )
        if self.remote and "://" not in self.remote and not self.remote.startswith(("/", "~")):
            raise ValueError(
                f"remote={self.remote!r} is a relative path: the trainer runs in another directory than you. Give an "
                "absolute path or a URL such as gs://bucket/checkpoints."
            )
        if self.kind == "next_token" and (self.neftune_alpha or self.loss_turns != "all"):
            raise ValueError(
                f"neftune_alpha={self.neftune_alpha}, loss_turns={self.loss_turns!r} with kind='next_token': both are "
                "about conversations. Use kind='sft', or leave them out."
            )
        if self.lora_rank and not self.base:
            raise ValueError(
                f"lora_rank={self.lora_rank} without base: adapters learn beside a trained model, and beside random "
                "weights there is nothing to adapt. Set base, or lora_rank to 0."
            )
        if self.skip_spikes and not self.spike_factor:
            raise ValueError(
                f"skip_spikes={self.skip_spikes} with spike_factor=0: nothing is ever a spike, so none would be left "
                "out. Set spike_factor, for example 6 as OLMo 2 did, or leave skip_spikes out."
            )
        self._require_launcher()
        return self

    def _require_launcher(self) -> None:
        devices = self.mesh.to_model().num_devices
        if self.hosts > 1 and self.launcher != "processes":
            raise ValueError(
                f"hosts={self.hosts} with launcher={self.launcher!r}: only processes is told how many; local is one, "
                "and jobset has as many as the machine in needs. Set launcher to processes, or leave hosts out."
            )
        if devices % self.hosts:
            raise ValueError(
                f"hosts={self.hosts} does not divide the {devices} devices of mesh: every process has as many. Use a "
                f"divisor of {devices}."
            )
        if self.launcher == "processes" and self.needs:
            raise ValueError(
                f"launcher='processes' with needs={self.needs!r}: it joins processes on the CPUs of one machine, and "
                "would not know which chips are whose. Use local for the chips of one machine, jobset for a slice."
            )
        if (self.launcher == "jobset") != (self.jobset is not None):
            raise ValueError(
                f"launcher={self.launcher!r} with jobset={self.jobset!r}: a JobSet needs to know its cluster, and "
                "nothing else does. Give both or neither."
            )
        if self.jobset is not None:
            machine(self.needs, devices)

    @property
    def rows(self) -> int:
        """Rows in a batch."""
        return self.batch_tokens // self.seq_len

    @property
    def _row_parts(self) -> int:
        return self.mesh.data * self.mesh.fsdp * self.mesh.expert

    def steps(self, mixture_tokens: int) -> int:
        """Optimizer steps of the run over a mixture with this budget."""
        total = self.total_tokens if self.total_tokens is not None else round((self.epochs or 0) * mixture_tokens)
        return max(1, total // self.batch_tokens)

    def optimizer(self, steps: int) -> OptimizerConfig:
        """The optimizer of a run of so many steps."""
        warmup = self.warmup_steps if self.warmup_steps is not None else round(self.warmup_fraction * steps)
        return OptimizerConfig(
            peak_lr=self.peak_lr,
            total_steps=steps,
            schedule=self.schedule,
            warmup_steps=warmup,
            final_lr_fraction=self.min_lr_fraction,
            decay_fraction=self.decay_fraction,
            beta2=self.beta2,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            z_loss=self.z_loss,
            ema_decay=self.ema_decay,
            guard=bool(self.skip_nonfinite or self.spike_factor),
            spike_factor=self.spike_factor,
            spike_window=self.spike_window,
        )

    @property
    def lora(self) -> LoraConfig | None:
        """The adapters of the run."""
        if not self.lora_rank:
            return None
        return LoraConfig(rank=self.lora_rank, alpha=self.lora_alpha, targets=self.lora_targets)

    def compute(self, platform: str) -> ComputeConfig:
        """How the run computes on devices of a platform (cpu, gpu, tpu)."""
        on_cpu, alone = platform == "cpu", self.mesh.to_model().num_devices == 1
        return ComputeConfig(
            dtype=self.dtype,
            remat=self.remat,
            attention=self.attention,
            quantization=self.quantization,
            microbatches=self.microbatches,
            scan_layers=not on_cpu,
            cpu_kernels=on_cpu and alone,
            # Devices that share the table gather it block by block: small blocks hide behind the one before.
            loss_chunk_tokens=2048 if alone else 512,
        )

    def check_machine(self) -> None:
        """Stop before the first byte when the accelerator is not here.

        Raises:
            ConfigError: with what is needed, what is here, and what runs here.
        """
        if not self.needs or self.launcher == "jobset":  # whose machines are elsewhere
            return
        kind = self.needs.split()[0].lower()
        here = _accelerators()
        if kind not in here:
            raise ConfigError(
                f"{self.model} with batch_tokens={self.batch_tokens:,} needs {self.needs}; this machine has "
                f"{os.cpu_count()} CPU cores and {' and '.join(here) if here else 'no accelerator'}. On it the run "
                "would take years. Run it on a machine (or work pool) that has one, or use the preset `tiny` of the "
                "same flow, which runs here in minutes; --set needs='' insists."
            )


def _accelerators() -> list[str]:
    """Kinds of accelerators that the kernel shows; JAX is not asked, because it would take them."""
    found: list[str] = []
    if glob.glob("/dev/accel*") or os.environ.get("TPU_WORKER_ID") is not None:
        found.append("tpu")
    if glob.glob("/dev/nvidia[0-9]*"):
        found.append("gpu")
    return found
