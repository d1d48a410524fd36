"""The peer of `bench.feed`: MaxText's own Grain pipeline, from ArrayRecord to batches, in one process.

    python maxtext_feed.py FOLDER TOKENIZER LENGTH ROWS

Its defaults but for: concat-then-split packing (as ours; its default, first fit, is also dearer), documents cut into
pieces instead of truncated (else tokens would be computed and thrown away), and no worker process (a process of its own
is not charged to this one).
"""

import json
import sys
import time
from pathlib import Path

import maxtext
import numpy as np
from array_record.python import array_record_module
from maxtext.configs import pyconfig
from maxtext.input_pipeline import grain_data_processing as pipeline
from maxtext.input_pipeline.protos import example_pb2


def main(folder: Path, tokenizer: str, length: int, rows: int) -> None:
    path = folder / "maxtext.arrayrecord"
    write(folder / "texts.jsonl", path)
    options = {
        "run_name": "bench",
        "base_output_directory": folder / "maxtext",
        "hardware": "cpu",
        "skip_jax_distributed_system": True,
        "model_name": "gemma2-2b",
        "enable_checkpointing": False,
        "dataset_type": "grain",
        "grain_file_type": "arrayrecord",
        "grain_train_files": path,
        "grain_worker_count": 0,
        "grain_packing_type": "concat_then_split",
        "use_truncation": False,
        "tokenizer_type": "huggingface",
        "tokenizer_path": tokenizer,
        "max_target_length": length,
        "per_device_batch_size": rows,
        "num_epoch": 1,
    }
    base = Path(maxtext.__file__).parent / "configs" / "base.yml"
    config = pyconfig.initialize(["feed", str(base), *(f"{name}={value}" for name, value in options.items())])
    dataset = pipeline.get_datasets(
        config.grain_train_files,
        config.grain_file_type,
        shuffle=config.enable_data_shuffling,
        shuffle_seed=config.data_shuffle_seed,
        shuffle_buffer_size=config.grain_shuffle_buffer_size,
        num_epoch=config.num_epoch,
        dataloading_host_index=0,
        dataloading_host_count=1,
        grain_worker_count=config.grain_worker_count,
        grain_num_threads=config.grain_num_threads,
        grain_prefetch_buffer_size=config.grain_prefetch_buffer_size,
        grain_data_source_max_workers=config.grain_data_source_max_workers,
    )
    dataset = pipeline.pretrain_preprocessing_pipeline(dataset, config, ["text"], True, config.grain_worker_count, 1)
    tokens = 0
    began = time.process_time()
    for batch in dataset:
        tokens += int(np.count_nonzero(batch["inputs_segmentation"]))
    print("\n" + json.dumps({"cpu_s": time.process_time() - began, "tokens": tokens}), flush=True)


def write(texts: Path, path: Path) -> None:
    """The records as MaxText wants them: tf.train.Example protos."""
    if path.exists():
        return
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1,zstd:3")
    for line in texts.read_text(encoding="utf-8").splitlines():
        example = example_pb2.Example()
        example.features.feature["text"].bytes_list.value.append(json.loads(line)["text"].encode())
        writer.write(example.SerializeToString())
    writer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
