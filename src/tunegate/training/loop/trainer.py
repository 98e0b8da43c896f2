"""The run inside one training process: transformers' Trainer with peft and DeepSpeed.

Rank 0 publishes each checkpoint in a thread of its own while training continues; one rank of each other node helps.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import deepspeed
import torch
from peft import PeftModel
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.utils import SAFE_WEIGHTS_NAME
from transformers.utils.logging import disable_progress_bar

from tunegate.api.errors import Preempted, TrainingError
from tunegate.api.versions import ModelVersion
from tunegate.training.data.examples import Pairs, open_training_data
from tunegate.training.data.packing import pack
from tunegate.training.data.tokenize import IGNORED, limits_of, load_tokenizer
from tunegate.training.loop.batches import Collator, Order, Packed, PairCollator, WithFiller
from tunegate.training.loop.callbacks import Outlook, RunCallback, resident_peak
from tunegate.training.loop.estimate import planned_memory
from tunegate.training.loop.folders import Folders, agree_on_record, find_folders, not_shared
from tunegate.training.loop.loss import AnswerLoss, Objective
from tunegate.training.loop.methods import load_model
from tunegate.training.loop.metrics import Metrics, host_for
from tunegate.training.loop.node_local import agree_on_start_node_local
from tunegate.training.loop.preemption import PreemptionCallback
from tunegate.training.loop.preferences import PreferenceLoss, frozen_reference
from tunegate.training.loop.resume import Start, agree_on_start, for_ranks
from tunegate.training.loop.shards import LARGEST, write_shards
from tunegate.training.loop.trainer_arguments import training_arguments
from tunegate.training.loop.universal import UniversalCheckpointCallback, load_universal
from tunegate.training.run.checkpoints import begin_checkpoint
from tunegate.training.run.layout import UPLOADS, VERSIONS
from tunegate.training.run.parts import KeyValueStore, Parts
from tunegate.training.run.plan import Plan, RunRecord
from tunegate.training.run.preemption import StopRequest
from tunegate.training.run.progress import Report, Uploading, append
from tunegate.training.run.publisher import Helper, Publisher, helper_of, publisher_of, sender_of, share_of

_LONGEST_UPLOAD = timedelta(days=1)

# The one operator that DeepSpeed would compile for gloo; without it no compiler is needed, and nothing gets slower.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def run(
    plan: Plan,
    output_dir: Path,
    stop: StopRequest | None = None,
    report: Report | None = None,
    kv_store: KeyValueStore | None = None,
) -> None:
    """Train, save and publish. Called in every rank at once.

    `report` gets every logging step and every published version, in rank 0. `kv_store` is the ranks' key-value
    store, None where there is one rank, or all surely have the same folder. Raises DataError, ModelError,
    TrainingError, StoreError when a checkpoint could not be published, or Preempted when all ranks agreed to `stop`.
    """
    disable_progress_bar()
    processes = int(os.environ["WORLD_SIZE"])
    record = agree_on_record(output_dir, plan, kv_store)
    plan = for_ranks(plan, record, processes)
    is_first = os.environ["RANK"] == "0"
    outlook = Outlook(planned_memory(plan, processes) if is_first else None, resident_peak())
    arguments = training_arguments(plan.config, output_dir)
    # On CPUs transformers leaves this for later, and ZeRO-3, which cuts weights as they are read, sees one rank.
    deepspeed.init_distributed(torch.distributed.get_backend(), auto_mpi_discovery=False)
    metrics = Metrics()
    if plan.config.metrics_port is not None and arguments.process_index == 0:
        metrics.serve(plan.config.metrics_port, host_for(os.environ))
    folders = find_folders(output_dir)
    start = _find_start(plan, record, arguments, folders)
    trainer = _make_trainer(plan, arguments)
    trainer.leads = folders.leads
    report = report or (lambda _: None)

    def on_published(version: ModelVersion) -> None:
        append(output_dir / VERSIONS, version)
        metrics.published()
        report(version)

    def on_waiting(uploading: Uploading) -> None:
        append(output_dir / UPLOADS, uploading)
        report(uploading)

    publisher, helper = _senders(plan, output_dir, folders, kv_store, on_published if is_first else None)
    preemption = PreemptionCallback(stop or StopRequest(), output_dir, looks=folders.leads)
    trainer.add_callback(preemption)
    trainer.add_callback(RunCallback(plan, output_dir, trainer, publisher, metrics, report, outlook, folders, helper))
    if start.folder and start.is_universal:
        trainer.add_callback(UniversalCheckpointCallback(start.folder, clears=folders.leads))
    _train(trainer, start, publisher, helper, preemption, on_waiting)


def _find_start(plan: Plan, record: RunRecord, arguments: TrainingArguments, folders: Folders) -> Start:
    """Where all ranks begin, with `arguments` set for it. Raises TrainingError as `use_node_local_storage`."""
    output_dir = Path(arguments.output_dir)
    if folders.is_shared and not folders.have_parts:
        start = agree_on_start(output_dir, is_first=folders.leads)
    else:
        use_node_local_storage(plan, arguments, folders)
        start = agree_on_start_node_local(plan, record, output_dir, folders)
    if start.is_universal:
        load_universal(arguments)
    return start


def _senders(
    plan: Plan,
    output_dir: Path,
    folders: Folders,
    kv_store: KeyValueStore | None,
    on_published: Callable[[ModelVersion], None] | None,
) -> tuple[Publisher | None, Helper | None]:
    """What sends checkpoints to the store from this rank. on_published: None in all ranks but the first."""
    share = share_of(os.environ) if folders.is_shared else None
    parts = Parts(kv_store, folders.rank, folders.others) if kv_store and not folders.is_shared else None
    publisher = publisher_of(plan, output_dir, on_published, share, parts) if on_published else None
    if parts and folders.leads and publisher is None:
        publisher = sender_of(plan, output_dir, parts)
    return publisher, helper_of(plan, share) if share and share.index else None


def use_node_local_storage(plan: Plan, arguments: TrainingArguments, folders: Folders) -> None:
    """Let each node write what its own ranks need to resume. Raises TrainingError where nobody would keep the rest."""
    is_mixed = not folders.is_shared and folders.leads != (arguments.local_process_index == 0)  # some nodes share one
    if plan.config.store is None or is_mixed:
        raise not_shared(Path(arguments.output_dir))
    if folders.is_shared:  # what one node wrote that is left
        return
    arguments.save_on_each_node = True
    settings = arguments.hf_deepspeed_config.config
    settings["checkpoint"] = {**settings.get("checkpoint", {}), "use_node_local_storage": True}


def _make_trainer(plan: Plan, arguments: TrainingArguments) -> FineTuningTrainer:
    config = plan.config
    tokenizer = load_tokenizer(Path(plan.base_folder), config.template)
    prepared = open_training_data(config, [Path(folder) for folder in plan.tokens])
    rows: Any = prepared.train
    held_out: Any = prepared.validation
    model, padding = load_model(plan, tokenizer, arguments), tokenizer.pad_token_id or 0  # its value is never read
    objective, collator = None, Collator(padding, apart=config.packing)
    if config.packing:
        packs = pack(rows.lengths, limits_of(config).longest, config.seed, shuffled=config.is_shuffle)
        rows = Packed(prepared.train, packs)
    if config.stage == "dpo":
        rows, held_out, collator = Pairs(rows), Pairs(held_out), PairCollator(padding)
        frozen = frozen_reference(model, plan, arguments)
        objective = PreferenceLoss(model, frozen, config.pref_beta, config.pref_ftx)
    trainer = FineTuningTrainer(
        model=model,
        args=arguments,
        train_dataset=WithFiller(rows),
        eval_dataset=held_out if config.val_size else None,
        is_shuffle=config.is_shuffle,
        objective=objective,
        data_collator=collator,
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)  # the log says the same, in lines that can be read again
    return trainer


def _train(
    trainer: FineTuningTrainer,
    start: Start,
    publisher: Publisher | None,
    helper: Helper | None,
    preemption: PreemptionCallback,
    on_waiting: Callable[[Uploading], None],
) -> None:
    """Train to the end or to where all agreed to stop, then publish what is not published by then.

    Every rank stays until that is done: launchers and training operators end the others when one has ended.
    """
    try:
        trainer.train(resume_from_checkpoint=str(start.folder) if start.folder else None)
    except BaseException:
        for sender in (publisher, helper):
            if sender:
                sender.cancel()
        raise
    everybody = torch.distributed.new_group(backend="gloo", timeout=_LONGEST_UPLOAD)
    reasons = [preemption.reason if preemption.agreed else ""]
    torch.distributed.broadcast_object_list(reasons, group=everybody)
    (reason,) = reasons
    if preemption.agreed and trainer.leads and not trainer.is_world_process_zero():
        preemption.keep(reason)
    if publisher:
        if waiting := publisher.waiting():
            on_waiting(waiting)
        (publisher.flush if preemption.agreed and not reason else publisher.close)()
    if helper:
        helper.close()
    torch.distributed.barrier(group=everybody)
    torch.distributed.destroy_process_group()
    if preemption.agreed:
        step = trainer.state.global_step
        if reason:
            raise TrainingError(
                f"The run was stopped for its numbers at step {step}, with everything published: {reason}. The same "
                "command has it go on, and nothing stops it again."
            )
        raise Preempted(f"The run was asked to stop and did at step {step}; the same command resumes from there.")


class FineTuningTrainer(Trainer):  # type: ignore[misc]
    """Trainer with our order of examples, our losses, and a validation loss that depends on no number of processes."""

    def __init__(self, *, model: Any, is_shuffle: bool, objective: Objective | None = None, **options: Any) -> None:
        self._objective = objective or AnswerLoss(model)
        self._is_shuffle = is_shuffle
        self._tokens: list[torch.Tensor] = []
        self._positions = 0
        self.leads = True  # does what is done once in each folder of the run
        super().__init__(model=model, compute_loss_func=self._objective.loss, **options)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        inputs = {**inputs, "use_cache": False}
        self._tokens.append(inputs.pop("tokens"))
        self._positions += inputs["input_ids"].numel()
        self._objective.begin(model, inputs)
        return super().compute_loss(model, inputs, *arguments, **options)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        items = sum((self._objective.items(batch["labels"]) for batch in batch_samples), torch.tensor(0))
        return self.accelerator.gather(items.to(device)).sum()

    def log(self, logs: dict[str, float], *arguments: Any) -> None:
        super().log({**logs, **(self._objective.logs() if "loss" in logs else {})}, *arguments)

    def count(self) -> tuple[int, int]:
        """Tokens read, and positions computed for them, in this rank since the last call."""
        counted = sum(int(tokens) for tokens in self._tokens), self._positions
        self._tokens.clear()
        self._positions = 0
        return counted

    @torch.no_grad()
    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Log and return the mean loss of all trained tokens, or pairs, that were held out.

        Every process does as many batches as the others: under ZeRO-3 each needs all of them for a layer.
        """
        model, examples = self.model_wrapped, self.eval_dataset
        model.eval()
        rows, first = self.args.per_device_train_batch_size, self.args.process_index
        sums: list[torch.Tensor] = []
        for start in range(0, len(examples), rows * self.args.world_size):
            begin = start + first * rows
            mine = [examples[index] for index in range(begin, min(begin + rows, len(examples)))]
            batch = self._prepare_inputs(self.data_collator(mine or [examples[0]]))
            batch.pop("tokens")
            batch["labels"] = labels = batch["labels"] if mine else torch.full_like(batch["labels"], IGNORED)
            batch["use_cache"] = False
            self._objective.begin(model, batch)
            batch.pop("labels")
            with self.compute_loss_context_manager():
                outputs = model(**batch)
            measured = self._objective.measured(outputs, labels)
            sums.append(torch.stack([*(value.double() for value in measured.values()), self._objective.items(labels)]))
        total = torch.stack(sums).sum(dim=0)
        torch.distributed.all_reduce(total)
        metrics = {f"eval_{name}": float(value / total[-1]) for name, value in zip(measured, total, strict=False)}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Below ZeRO-3 every process has all weights; transformers would copy them first, and write tied ones twice.

        Under ZeRO-3 it would hold them all in one process, which is left to adapters: they are small.
        """
        if self.deepspeed.zero_optimization_stage() < 3:
            self._save(output_dir)
        elif isinstance(self.model, PeftModel):
            super().save_model(output_dir, _internal_call)
        else:
            folder = Path(output_dir or self.args.output_dir)
            self._save(str(folder), state_dict={})  # all but the weights
            if self.is_world_process_zero():
                (folder / SAFE_WEIGHTS_NAME).unlink(missing_ok=True)
            write_shards(self.deepspeed, folder, LARGEST)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """All but the weights that processes divide is the same on each node: the first one's is enough."""
        if self.is_world_process_zero():
            super()._save(output_dir, state_dict)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """An adapter without its base: DeepSpeed leaves that out by the names of parameters, of which shared weights,
        such as a head's, have but one."""

        def leave_out_frozen(model: torch.nn.Module, state: dict[str, Any], *_: Any) -> None:
            for name, weight in model.named_parameters(remove_duplicate=False):
                if not weight.requires_grad:
                    state.pop(name, None)

        if not isinstance(self.model, PeftModel):
            super()._save_optimizer_and_scheduler(output_dir)
            return
        hook = self.model.register_state_dict_post_hook(leave_out_frozen)
        try:
            super()._save_optimizer_and_scheduler(output_dir)
        finally:
            hook.remove()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.leads:
            begin_checkpoint(Path(self.args.output_dir), self.state.global_step)
        torch.distributed.barrier()
        super()._save_checkpoint(model, trial)

    def _get_train_sampler(self, train_dataset: Any = None) -> Order:
        global_batch = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        self.order = Order(self.train_dataset.lengths, global_batch, self.args.seed, shuffled=self._is_shuffle)
        return self.order
