"""The run inside one training process: transformers' Trainer with peft and DeepSpeed.

Rank 0 publishes each checkpoint in a thread of its own while training goes on.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import deepspeed
import msgspec
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.utils.logging import disable_progress_bar

from tunegate.api.errors import ModelError, TrainingError
from tunegate.api.versions import ModelVersion
from tunegate.models.templates import TURN_END, TURN_START, load_template
from tunegate.store import Store
from tunegate.training.arguments import TrainConfig, load_deepspeed
from tunegate.training.batches import Collator, LengthGroupedSampler
from tunegate.training.checkpoints import (
    Checkpoint,
    Publisher,
    complete_checkpoints,
    publish_checkpoint,
    remove_incomplete,
    seal,
    unpublished,
)
from tunegate.training.datasets import check_account, load_corpora, write_rejected
from tunegate.training.encode import Example, encode_rows
from tunegate.training.log import LOG, VERSIONS, Progress, append, cut_log
from tunegate.training.loss import TrainedPositions
from tunegate.training.plan import REJECTED, Plan

# The one operator that DeepSpeed would compile for gloo; without it no compiler is needed, and nothing gets slower.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

_SHARED_SECONDS = 30.0  # network file systems remember for some seconds that a file is not there


def run(plan: Plan, output_dir: Path) -> None:
    """Train, save and publish. Called in every rank at once.

    Raises DataError, ModelError, TrainingError, or StoreError when a checkpoint could not be published.
    """
    disable_progress_bar()
    config = plan.config
    arguments = _training_arguments(config, output_dir)
    resume_from = _settle(output_dir, is_first=arguments.process_index == 0)
    tokenizer = load_tokenizer(Path(plan.base_folder), config.template)
    examples = _load_examples(config, tokenizer, output_dir, is_first=arguments.process_index == 0)
    model = _load_model(plan, tokenizer, arguments)
    trainer = Tuner(
        model=model,
        args=arguments,
        train_dataset=examples,
        data_collator=Collator(tokenizer.pad_token_id or 0),  # a masked position: its value is never read
        processing_class=tokenizer,
    )
    publisher = _publisher(plan, output_dir) if trainer.is_world_process_zero() else None
    trainer.add_callback(_Record(plan, output_dir, trainer, publisher))
    try:
        trainer.train(resume_from_checkpoint=resume_from)
    except BaseException:
        if publisher:
            publisher.cancel()
        raise
    if publisher:
        publisher.close()
    torch.distributed.destroy_process_group()


def _settle(output_dir: Path, *, is_first: bool) -> str | None:
    """Where all ranks go on from: the newest complete checkpoint, once what a broken attempt left is cleared away.

    torchrun may have started the ranks anew after it lost a node, so a plan can't know. Raises TrainingError when the
    nodes don't see the same folder: each would keep a part of every checkpoint that no other can read.
    """
    token = [secrets.token_hex(8) if is_first else ""]
    torch.distributed.broadcast_object_list(token)
    mark = output_dir / f".shared-{token[0]}"
    if is_first:
        remove_incomplete(output_dir)
        mark.touch()
    torch.distributed.barrier()
    deadline = time.monotonic() + _SHARED_SECONDS
    while not mark.exists():
        if time.monotonic() > deadline:
            raise TrainingError(
                f"{output_dir} is not the same folder on all nodes; mount one ReadWriteMany volume there on each."
            )
        time.sleep(0.5)
    newest = next(reversed(complete_checkpoints(output_dir)), None)
    torch.distributed.barrier()
    if is_first:
        mark.unlink()
        cut_log(output_dir, newest.step if newest else 0)
    return str(newest.resume) if newest else None


def load_tokenizer(folder: Path, template: str) -> Any:
    """The folder's tokenizer with our chat template. Raises ModelError when it lacks the template's tokens."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for token in (TURN_START, TURN_END):
        if tokenizer.convert_tokens_to_ids(token) in (None, tokenizer.unk_token_id):
            raise ModelError(
                f"The tokenizer in {folder} has no {token}, which the template {template} needs; use another base."
            )
    tokenizer.chat_template = load_template(template)
    return tokenizer


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


def _load_examples(config: TrainConfig, tokenizer: Any, output_dir: Path, *, is_first: bool) -> list[Example]:
    corpora = load_corpora(Path(config.dataset_dir), config.dataset, max_samples=config.max_samples)
    encoded = encode_rows(tokenizer, (row for corpus in corpora for row in corpus.rows), config.cutoff_len)
    rejected = [*(row for corpus in corpora for row in corpus.rejected), *encoded.rejected]
    if is_first:
        write_rejected(output_dir / REJECTED, rejected)
    check_account(len(encoded.examples), rejected, config.max_rejected)
    return list(encoded.examples)


def _load_model(plan: Plan, tokenizer: Any, arguments: TrainingArguments) -> Any:
    dtype = torch.bfloat16 if arguments.bf16 else torch.float32
    model = AutoModelForCausalLM.from_pretrained(plan.base_folder, dtype=dtype)
    model.generation_config.eos_token_id = _stop_tokens(model, tokenizer)
    config = plan.config
    if config.finetuning_type == "full":
        return model
    torch.manual_seed(config.seed)
    adapter = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules="all-linear",
    )
    return get_peft_model(model, adapter)


def _stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    """What ends an answer: the base model's own tokens, and the one that closes a turn."""
    own = model.generation_config.eos_token_id
    known = own if isinstance(own, list) else [own] if own is not None else []
    return sorted({*known, tokenizer.convert_tokens_to_ids(TURN_END)})


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


class _Record(TrainerCallback):  # type: ignore[misc]
    """Writes the log, seals each checkpoint when every rank has written it, and hands it to the publisher."""

    def __init__(self, plan: Plan, output_dir: Path, trainer: Tuner, publisher: Publisher | None) -> None:
        self._plan = plan
        self._output_dir = output_dir
        self._trainer = trainer
        self._publisher = publisher
        self._loss: float | None = None
        self._first_step = 0
        self._begun = self._logged = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._first_step = state.global_step
        self._begun = self._logged = time.monotonic()

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # accelerate 1.15 does not tell the sampler when a run resumes in the middle of an epoch.
        self._trainer.order.set_epoch(int(state.epoch or 0))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise TrainingError(
                f"The loss is {logs['loss']} at step {state.global_step}; "
                "start a new run with a smaller --learning_rate."
            )
        self._loss = logs["loss"]
        if self._publisher:
            append(self._output_dir / LOG, self._progress(args, state, logs))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        torch.distributed.barrier()
        if self._publisher is None:
            return
        folder = self._output_dir / f"checkpoint-{state.global_step}"
        _make_servable(folder, self._trainer.model, self._plan)
        checkpoint = seal(
            folder, step=state.global_step, total_steps=state.max_steps, epoch=state.epoch or 0.0, loss=self._loss
        )
        self._publisher.submit(checkpoint)

    def _progress(self, args: TrainingArguments, state: TrainerState, logs: dict[str, Any]) -> Progress:
        now = time.monotonic()
        tokens, positions = self._trainer.count()
        elapsed = now - self._begun
        done = state.global_step - self._first_step
        progress = Progress(
            current_steps=state.global_step,
            total_steps=state.max_steps,
            epoch=state.epoch or 0.0,
            loss=logs["loss"],
            learning_rate=logs["learning_rate"],
            tokens_per_second=tokens * args.world_size / (now - self._logged),
            padding=1 - tokens / positions,
            elapsed_seconds=elapsed,
            remaining_seconds=elapsed / done * (state.max_steps - state.global_step),
        )
        self._logged = now
        return progress


def _make_servable(folder: Path, model: Any, plan: Plan) -> None:
    """Add what the Trainer leaves out: stop tokens, and for an adapter the base it belongs to, not our cache's path."""
    model.generation_config.save_pretrained(folder)
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        assert plan.release.base is not None
        settings = msgspec.json.decode(adapter.read_bytes())
        settings["base_model_name_or_path"] = plan.release.base.uri
        adapter.write_bytes(msgspec.json.format(msgspec.json.encode(settings)) + b"\n")
