"""The run inside one training process: transformers' Trainer with peft and DeepSpeed.

Rank 0 publishes each checkpoint in a thread of its own while training goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import deepspeed
import torch
from transformers import Trainer, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from tunegate.api.versions import ModelVersion
from tunegate.store import Store
from tunegate.training.arguments import TrainConfig, load_deepspeed
from tunegate.training.batches import Collator, LengthGroupedSampler
from tunegate.training.checkpoints import Checkpoint, Publisher, publish_checkpoint, unpublished
from tunegate.training.encode import Example
from tunegate.training.log import VERSIONS, append
from tunegate.training.loss import TrainedPositions
from tunegate.training.methods import load_model, load_tokenizer
from tunegate.training.plan import Plan
from tunegate.training.record import Record
from tunegate.training.resuming import settle
from tunegate.training.tokens import load_examples

# The one operator that DeepSpeed would compile for gloo; without it no compiler is needed, and nothing gets slower.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def run(plan: Plan, output_dir: Path) -> None:
    """Train, save and publish. Called in every rank at once.

    Raises DataError, ModelError, TrainingError, or StoreError when a checkpoint could not be published.
    """
    disable_progress_bar()
    config = plan.config
    arguments = _training_arguments(config, output_dir)
    resume_from = settle(output_dir, is_first=arguments.process_index == 0)
    tokenizer = load_tokenizer(Path(plan.base_folder), config.template)
    examples = load_examples(config, tokenizer, output_dir, is_first=arguments.process_index == 0)
    model = load_model(plan, tokenizer, arguments)
    trainer = Tuner(
        model=model,
        args=arguments,
        train_dataset=examples,
        data_collator=Collator(tokenizer.pad_token_id or 0),  # a masked position: its value is never read
        processing_class=tokenizer,
    )
    publisher = _publisher(plan, output_dir) if trainer.is_world_process_zero() else None
    trainer.add_callback(Record(plan, output_dir, trainer, publisher))
    try:
        trainer.train(resume_from_checkpoint=resume_from)
    except BaseException:
        if publisher:
            publisher.cancel()
        raise
    if publisher:
        publisher.close()
    torch.distributed.destroy_process_group()


class Tuner(Trainer):  # type: ignore[misc]
    """Trainer with our order of examples, and our loss."""

    def __init__(self, *, model: Any, **options: Any) -> None:
        self._trained = TrainedPositions(model)
        self._masks: list[torch.Tensor] = []
        super().__init__(model=model, compute_loss_func=self._trained.loss, **options)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        self._trained.expect(inputs["labels"])
        self._masks.append(inputs["attention_mask"])
        return super().compute_loss(model, {**inputs, "use_cache": False}, *arguments, **options)

    def count(self) -> tuple[int, int]:
        """Tokens read, and positions computed for them, in this rank since the last call."""
        tokens = sum(int(mask.sum()) for mask in self._masks)
        positions = sum(mask.numel() for mask in self._masks)
        self._masks.clear()
        return tokens, positions

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedSampler:
        dataset: Sequence[Example] = self.train_dataset
        lengths = [len(example.input_ids) for example in dataset]
        global_batch = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        self.order = LengthGroupedSampler(lengths, global_batch, self.args.seed)
        return self.order


def _training_arguments(config: TrainConfig, output_dir: Path) -> TrainingArguments:
    on_cpu = not torch.accelerator.is_available()
    return TrainingArguments(
        output_dir=str(output_dir),
        per_device_train_batch_size=config.per_device_train_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        learning_rate=config.learning_rate,
        num_train_epochs=config.num_train_epochs,
        max_steps=config.max_steps,
        lr_scheduler_type=config.lr_scheduler_type,
        warmup_steps=config.warmup_ratio,  # below 1 it is a share of all steps
        seed=config.seed,
        use_cpu=on_cpu,
        bf16=computes_in_bfloat16(config.bf16),
        deepspeed=load_deepspeed(config),
        logging_steps=config.logging_steps,
        logging_nan_inf_filter=False,
        save_strategy=config.save_strategy,
        save_steps=config.save_steps,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=not on_cpu,
    )


def computes_in_bfloat16(wish: str) -> bool:
    """Whether to compute in bfloat16: as wished, or on "auto" where the device has instructions for it.

    On a processor without them bfloat16 is emulated and slower than float32. float16 is no choice: DeepSpeed has none
    on the processor, and Qwen2 overflows in it.
    """
    if wish != "auto":
        return wish == "true"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _publisher(plan: Plan, output_dir: Path) -> Publisher:
    config = plan.config
    store = Store.open(config.store, endpoint_url=config.endpoint_url)

    def publish(checkpoint: Checkpoint) -> ModelVersion:
        name = f"{config.model}/{config.run}"
        version = publish_checkpoint(store, checkpoint, name, plan.release, plan.producer)
        append(output_dir / VERSIONS, version)
        return version

    publisher = Publisher(publish)
    for left in unpublished(store, config.model, config.run, output_dir):  # by a broken attempt; before newer ones
        publisher.submit(left)
    return publisher
