"""What the flags of other trainers mean here: of LLaMA-Factory, of 2023 and of today, and of TRL, ms-swift and Qwen's
scripts, where people's lines have them. They become ours, have no effect, or are refused, all of them in one message.

Pure: arguments in, arguments out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

SAME = {
    "adapter_name_or_path": "resume_from",
    "beta": "pref_beta",
    "dev_ratio": "val_size",
    "checkpoint_dir": "resume_from",
    "data_path": "dataset",
    "dpo_beta": "pref_beta",
    "dpo_ftx": "pref_ftx",
    "freeze_trainable_layers": "num_layer_trainable",
    "freeze_trainable_modules": "name_module_trainable",
    "lora_modules": "lora_target",
    "lora_r": "lora_rank",
    "lora_target_modules": "lora_target",
    "max_length": "cutoff_len",
    "max_seq_length": "cutoff_len",
    "model_max_length": "cutoff_len",
    "neat_packing": "packing",
    "pre_seq_len": "num_virtual_tokens",
    "prompt_template": "template",
    "pure_bf16": "bf16",
    "rlhf_type": "stage",
    "run_name": "run",  # the only one under torchrun, which takes --run for a short form of its own --run-path
    "sft_type": "finetuning_type",
    "split_dataset_ratio": "val_size",
    "target_modules": "lora_target",
    "train_type": "finetuning_type",
    "tuner_type": "finetuning_type",
}
"""Another name, and ours for the same thing."""

OPPOSITE = {
    "disable_gradient_checkpointing": "gradient_checkpointing",
    "disable_shuffling": "is_shuffle",
    "no_resume": "resume",
}
"""A name, and ours for its opposite."""

_ALWAYS = "what it asks for always happens"
_ANSWERS = "answers are trained, and nothing else"
_ATTENTION = "the fastest attention that the machine has is used"
_ELSEWHERE = "metrics go to trainer_log.jsonl, to --metrics_port, and with --report_to tensorboard to TensorBoard"
_EVERY = "each checkpoint is kept, and a gate chooses among them"
_FROM_DISK = "tokens are read from disk, without work to share"
_FUSED = "the head is computed only where a token is trained, and DeepSpeed has the rest"
_NO_CODE = "no code of a model's folder is ever run; the base is one that transformers knows"
_NO_IMAGES = "only text is trained"
_ONCE = "records are read once, before training, by one process"
_RESUMES = "a run resumes from its newest complete checkpoint by itself"
_SERVING = "it is for generating; give it to `tunegate evaluate` or to the server"
_WITH_CHECKPOINTS = "the validation split (--val_size) is measured with each checkpoint"
WITHOUT_EFFECT = {
    "assistant_only_loss": _ANSWERS,
    "attn_implementation": _ATTENTION,
    "attn_impl": _ATTENTION,
    "audio_sampling_rate": _NO_IMAGES,
    "average_tokens_across_devices": _ALWAYS,
    "bf16_full_eval": "the validation split is measured as training computes",
    "buffer_size": "tokens are read from disk, in any order",
    "completion_only_loss": _ANSWERS,
    "compute_accuracy": "measure a version with `tunegate evaluate`",
    "data_seed": "the order of the data follows --seed",
    "data_shared_file_system": "tokens are made once on each node",
    "dataloader_drop_last": "the last batch is trained, however many rows it has",
    "dataloader_num_workers": _FROM_DISK,
    "dataloader_persistent_workers": _FROM_DISK,
    "dataloader_pin_memory": _FROM_DISK,
    "dataloader_prefetch_factor": _FROM_DISK,
    "dataset_num_proc": _ONCE,
    "ddp_backend": "it follows from the devices",
    "ddp_find_unused_parameters": "DeepSpeed shares the work out",
    "ddp_timeout": "no process waits for another while records are read",
    "disable_tqdm": "progress is a line for each --logging_steps",
    "do_eval": _WITH_CHECKPOINTS,
    "do_train": "",
    "enable_liger_kernel": _FUSED,
    "enable_thinking": "what the records say is trained",
    "eos_token": "an answer ends as the chat template closes it",
    "eval_accumulation_steps": _WITH_CHECKPOINTS,
    "eval_on_start": _WITH_CHECKPOINTS,
    "eval_steps": _WITH_CHECKPOINTS,
    "eval_strategy": _WITH_CHECKPOINTS,
    "evaluation_strategy": _WITH_CHECKPOINTS,
    "flash_attn": _ATTENTION,
    "freeze_aligner": _NO_IMAGES,
    "freeze_language_model": _NO_IMAGES,
    "freeze_multi_modal_projector": _NO_IMAGES,
    "freeze_vision_tower": _NO_IMAGES,
    "freeze_vit": _NO_IMAGES,
    "full_determinism": _ALWAYS,
    "gradient_checkpointing_kwargs": "the kind of checkpointing follows from the method",
    "greater_is_better": _EVERY,
    "group_by_length": _ALWAYS,
    "hub_model_id": _EVERY,
    "ignore_data_skip": "a resumed run reads the data in the order it would have had",
    "image_max_pixels": _NO_IMAGES,
    "image_min_pixels": _NO_IMAGES,
    "include_effective_tokens_per_second": _ALWAYS,
    "include_num_input_tokens_seen": _ALWAYS,
    "include_tokens_per_second": _ALWAYS,
    "lazy_preprocess": _ONCE,
    "lazy_tokenize": _ONCE,
    "load_best_model_at_end": _EVERY,
    "load_from_cache_file": "tokens are kept by the digest of the data; --overwrite_cache makes them anew",
    "local_rank": "",
    "log_level": "what the processes say is in train.log",
    "log_on_each_node": "only the first node reports",
    "logging_dir": "everything lies in --output_dir",
    "logging_first_step": "give --logging_steps 1",
    "logging_strategy": "it goes by --logging_steps",
    "low_cpu_mem_usage": _ALWAYS,
    "max_new_tokens": _SERVING,
    "media_dir": _NO_IMAGES,
    "metric_for_best_model": _EVERY,
    "model_author": "a version is known by its name",
    "model_name": "a version is known by its name",
    "model_type": "the base model says what it is",
    "ms_hub_token": "modelscope reads its own",
    "num_proc": _ONCE,
    "overwrite_output_dir": "no run deletes another: what is there is resumed, or refused if it is another's",
    "packing_strategy": "--packing fills rows as they fit best",
    "padding_free": "--packing leaves padding out",
    "padding_side": "it makes no difference to what is trained",
    "per_device_eval_batch_size": "they are measured in batches of --per_device_train_batch_size",
    "plot_loss": "",
    "preprocessing_batch_size": _ONCE,
    "preprocessing_num_workers": _ONCE,
    "print_param_status": "run.json and the manifest say what is trained",
    "remove_unused_columns": _ALWAYS,
    "resize_vocab": "no token is added to the vocabulary",
    "resume_lora_training": _RESUMES,
    "save_on_each_node": "nodes share --output_dir, or each keeps its own part there",
    "save_only_model": "a checkpoint keeps what it takes to resume; bound them with --save_total_limit",
    "save_safetensors": _ALWAYS,
    "streaming": "tokens are read from disk, however many there are",
    "temperature": _SERVING,
    "tf32": "it changes no bfloat16",
    "top_k": _SERVING,
    "top_p": _SERVING,
    "trust_remote_code": _NO_CODE,
    "tuner_backend": "adapters are peft's",
    "upcast_layernorm": "norms are computed in float32 by the model itself",
    "use_cache": "no answer is generated",
    "use_fast_tokenizer": "every tokenizer is a fast one",
    "use_hf": "the name of the model says the hub: hf://ORG/NAME or ms://ORG/NAME",
    "use_kernels": _FUSED,
    "use_reentrant_gc": "the kind of checkpointing follows from the method",
    "use_swanlab": _ELSEWHERE,
    "use_unsloth_gc": "--gradient_checkpointing saves the same memory",
    "video_fps": _NO_IMAGES,
    "vit_lr": _NO_IMAGES,
    "video_max_pixels": _NO_IMAGES,
    "video_maxlen": _NO_IMAGES,
    "video_min_pixels": _NO_IMAGES,
}
"""Accepted, and why nothing comes of it; the empty reason goes without saying."""

_MEASURED = "measure a version with `tunegate evaluate`"
_AFTER = "train in bfloat16, and make a smaller version afterwards with `tunegate quantize`"
_GPU = "a GPU is used where there is one; hide it with CUDA_VISIBLE_DEVICES=''"
_LORA = "LoRA is trained as in its first paper; leave it out"
_LOSS = "the loss is cross-entropy over the answers, and over pairs DPO's sigmoid; leave it out"
_PAIRS = "the loss over pairs is DPO's, sigmoid; leave it out"
_REFERENCE = "the reference is the base that training begins with; leave it out"
_STAGE = "tunegate trains on given answers (--stage sft), or on pairs of them (--stage dpo)"
_OPTIM = "it needs whole matrices, which DeepSpeed cuts into flat parts; choose another --optim"
_SHARED = "DeepSpeed shares the weights out; give --deepspeed a file of ZeRO-3"
_STARTED = "start processes with --nproc_per_node, torchrun, or a PyTorchJob; leave it out"
_HUB = "the hub's own client reads it; set HF_TOKEN in the environment"
_TURN = "write it into the records of the data set, as their system turn"
REFUSED = {
    "activation_offloading": "give --gradient_checkpointing true",
    "add_special_tokens": "no token is added to the vocabulary; leave it out",
    "add_tokens": "no token is added to the vocabulary; leave it out",
    "additional_target": "an adapter is trained and nothing beside it; leave it out, or give --finetuning_type full",
    "auto_find_batch_size": "give --per_device_train_batch_size",
    "batch_size": "give --per_device_train_batch_size",
    "cache_dir": "set TUNEGATE_CACHE in the environment instead",
    "chat_template_path": "save it as chat_template.jinja in the folder of the base",
    "create_new_adapter": _LORA,
    "dataset_name": "give --dataset the path of its files, or of an entry in dataset_info.json",
    "dataset_text_field": "name the columns of the data set in its entry of dataset_info.json",
    "default_system": _TURN,
    "do_predict": _MEASURED,
    "double_quantization": _AFTER,
    "dpo_label_smoothing": _PAIRS,
    "dpo_loss": _PAIRS,
    "early_stopping_steps": "a policy ends a run whose checkpoints get worse (docs/evaluation.md); leave it out",
    "eval_data_path": "make a validation split with --val_size",
    "eval_dataset": "make a validation split with --val_size",
    "freeze_llm": "choose what is trained by --finetuning_type",
    "freeze_extra_modules": "name the modules in --name_module_trainable",
    "fsdp": _SHARED,
    "fsdp_config": _SHARED,
    "fsdp_transformer_layer_cls_to_wrap": _SHARED,
    "hf_hub_token": _HUB,
    "hub_token": _HUB,
    "infer_backend": "give the version to `tunegate serve`",
    "kto_chosen_weight": f"{_STAGE}; leave it out",
    "label_smoothing_factor": _LOSS,
    "ld_alpha": _PAIRS,
    "load_in_4bit": _AFTER,
    "load_in_8bit": _AFTER,
    "loraplus_lr_ratio": _LORA,
    "loss_type": _LOSS,
    "lang": _MEASURED,
    "mask_history": "every answer of a dialogue is trained; split the records where only the last should be",
    "mixture_of_depths": "the base is trained as it is; leave it out",
    "modules_to_save": "an adapter is trained and nothing beside it; leave it out, or give --finetuning_type full",
    "n_shot": _MEASURED,
    "neftune_noise_alpha": "no noise is added, so that equal runs are equal; leave it out",
    "new_special_tokens_config": "no token is added to the vocabulary; leave it out",
    "no_cuda": _GPU,
    "optim_args": "give --adam_beta1, --adam_beta2 and --adam_epsilon; the others have no arguments",
    "optim_target_modules": _OPTIM,
    "oft_rank": "give --finetuning_type lora",
    "pissa_init": _LORA,
    "ppo_epochs": f"{_STAGE}; leave it out",
    "ppo_score_norm": f"{_STAGE}; leave it out",
    "predict_with_generate": _MEASURED,
    "pref_bco_weight": _PAIRS,
    "pref_loss": _PAIRS,
    "push_to_hub": "versions are published in --store; leave it out",
    "q_lora": _AFTER,
    "quantization_bit": _AFTER,
    "quantization_method": _AFTER,
    "quantization_type": _AFTER,
    "ref_model": _REFERENCE,
    "ref_model_adapters": _REFERENCE,
    "resume_from_checkpoint": f"{_RESUMES}; to train a version further give --resume_from",
    "reward_model": f"{_STAGE}; leave it out",
    "rope_scaling": "write it into the config.json of the base model",
    "shift_attn": f"{_ATTENTION}; leave it out",
    "simpo_gamma": _PAIRS,
    "stage": f"{_STAGE}; give one of these",
    "source_prefix": _TURN,
    "split": "name the file of the split in dataset_info.json",
    "system": _TURN,
    "system_prompt": _TURN,
    "task": _MEASURED,
    "tokenized_path": "tokens are kept under TUNEGATE_CACHE by the digest of the data; leave it out",
    "torch_compile": "nothing is compiled; leave it out",
    "train_from_scratch": "training begins with the weights of the base; leave it out",
    "train_on_prompt": "only answers are trained; leave it out",
    "use_adam_mini": _OPTIM,
    "use_apollo": _OPTIM,
    "use_asft_loss": _LOSS,
    "use_auth_token": _HUB,
    "use_badam": _OPTIM,
    "use_cpu": _GPU,
    "use_dft_loss": _LOSS,
    "use_dora": _LORA,
    "use_eaft_loss": _LOSS,
    "use_galore": _OPTIM,
    "use_hyper_parallel": _STARTED,
    "use_kt": "the base is trained by transformers; leave it out",
    "use_liger_kernel": f"{_FUSED}; leave it out",
    "use_llama_pro": "name the layers with --finetuning_type freeze",
    "use_mca": "the base is trained by transformers; leave it out",
    "use_megatron_bridge": "the base is trained by transformers; leave it out",
    "use_muon": _OPTIM,
    "use_rslora": _LORA,
    "use_unsloth": "it is not needed; leave it out",
}
"""What tunegate does not do, and what to do instead."""

FAMILIES = {
    "apollo": _OPTIM,
    "badam": _OPTIM,
    "export": "`tunegate merge` and `tunegate models fetch` write models; leave it out",
    "galore": _OPTIM,
    "kt": "the base is trained by transformers; leave it out",
    "ray": _STARTED,
    "sglang": "it is for serving; leave it out",
    "swanlab": f"{_ELSEWHERE}; leave it out",
    "vllm": "it is for serving; leave it out",
}
"""How names of flags begin that belong to something tunegate does not do, and what to do instead."""

DONE = {
    "dpo_label_smoothing": {"0", "0.0"},
    "dpo_loss": {"sigmoid"},
    "label_smoothing_factor": {"0", "0.0"},
    "loss_type": {"sigmoid"},
    "pref_bco_weight": {"0", "0.0"},
    "pref_loss": {"sigmoid"},
    "resume_from_checkpoint": {"true", "True"},
    "stage": {"sft", "dpo"},
}
"""Values of those above that tunegate does anyway, and accepts silently; as it does False."""

_FALSE = {"false", "0", "no", "none", "off", "null"}
_SEVERAL = {"dataset", "interleave_probs", "lora_target", "report_to"}
_SEVERAL |= {name for name, ours in SAME.items() if ours in _SEVERAL}
_DTYPES = {
    "bfloat16": ("--bf16=true",),
    "float16": ("--fp16=true", "--bf16=false"),
    "float32": ("--bf16=false",),
    "auto": (),
}


@dataclass(frozen=True)
class Translation:
    """Arguments in our names, sentences about those that have no effect, and about those that are refused."""

    arguments: tuple[str, ...]
    notes: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def translate(arguments: Sequence[str], known: frozenset[str]) -> Translation:
    """`arguments` in the names of `known`; those that are in no table here are refused with the nearest that is."""
    kept: list[str] = []
    notes: dict[str, None] = {}
    refused: dict[str, None] = {}
    given: set[str] = set()
    for argument, flag, values in _with_lists(arguments):
        value = ",".join(values) if values else None
        ours = _in_our_words(flag, value)
        given.add(flag)
        if flag == "report_to":
            trackers = [tracker for tracker in values if not _is_false(tracker)]
            kept.append(f"--report_to={'tensorboard' if 'tensorboard' in trackers else 'none'}")
            others = [tracker for tracker in trackers if tracker != "tensorboard"]
            notes |= {f"--report_to {other} has no effect: {_ELSEWHERE}.": None for other in others}
        elif ours is not None:
            kept += ours
        elif SAME.get(flag, flag) == "stage" and value not in DONE["stage"]:
            refused[f"--{flag} {value} is not supported: {REFUSED['stage']}."] = None
        elif flag in known:
            kept += [f"--{flag}"] if value is None else [f"--{flag}={value}"]
        elif flag in SAME:
            kept += [f"--{SAME[flag]}"] if value is None else [f"--{SAME[flag]}={value}"]
        elif flag in OPPOSITE:
            kept += [f"--{OPPOSITE[flag]}={_is_false(value)}"]
        elif reason := REFUSED.get(flag) or FAMILIES.get(flag.partition("_")[0]):
            if not _is_false(value) and value not in DONE.get(flag, ()):
                refused[f"--{' '.join(filter(None, [flag, value]))} is not supported: {reason}."] = None
        elif flag in WITHOUT_EFFECT:
            if WITHOUT_EFFECT[flag]:
                notes[f"--{flag} has no effect: {WITHOUT_EFFECT[flag]}."] = None
        elif argument in ("-h", "--help"):
            kept.append(argument)
        else:
            refused[_unknown(argument, flag, known)] = None
    if "save_steps" in given and "save_strategy" not in given:
        kept.append("--save_strategy=steps")
    return Translation(tuple(kept), tuple(notes), tuple(refused))


def _in_our_words(flag: str, value: str | None) -> list[str] | None:
    """What a flag whose meaning depends on its value comes to; None for another flag, or value."""
    if flag in ("use_lora", "use_peft"):
        return [f"--finetuning_type={'full' if _is_false(value) else 'lora'}"]
    if flag in ("dtype", "torch_dtype") and (value or "").removeprefix("torch.") in _DTYPES:
        return list(_DTYPES[(value or "").removeprefix("torch.")])
    if flag == "deepspeed" and value == "zero2":  # ms-swift's name for what is the default here
        return []
    if flag == "save_strategy" and _is_false(value):
        return ["--save_strategy=no"]
    if flag == "optim" and value == "adamw_hf":  # torch's, by the name of transformers' own, which is gone
        return ["--optim=adamw_torch"]
    if flag == "warmup_steps" and value and 0 < _number(value) < 1:  # transformers' share of all steps
        return [f"--warmup_ratio={value}"]
    if flag in ("lora_target", "target_modules", "lora_target_modules") and value == "all-linear":
        return ["--lora_target=all"]
    if flag == "model" and "/" in (value or ""):  # as in ms-swift: no name of a model has a slash
        return [f"--model_name_or_path={value}"]
    return None


def _with_lists(arguments: Sequence[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Each flag with its values: one, or for those that take several all words up to the next flag."""
    found: list[tuple[str, str, list[str]]] = []
    for argument, flag, value in flags(arguments):
        if not flag and found and found[-1][1] in _SEVERAL and found[-1][2]:
            found[-1][2].append(argument)
        else:
            found.append((argument, flag, [] if value is None else value.split(",") if flag in _SEVERAL else [value]))
    return iter(found)


def _unknown(argument: str, flag: str, known: frozenset[str]) -> str:
    if not flag:
        return f"{argument!r} is no flag; a flag begins with --, and its value stands beside it or after '='."
    near = get_close_matches(flag, known | SAME.keys() | OPPOSITE.keys(), 1, cutoff=0.75)
    return f"There is no --{flag}" + (f"; did you mean --{near[0]}?" if near else "; leave it out.")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def without_rank(arguments: Sequence[str]) -> list[str]:
    """`arguments` without the rank that a launcher puts before the script's own; the environment has it, too."""
    return [argument for argument in arguments if not re.match(r"--local[_-]rank=", argument)]


def name_of(output_dir: str) -> str:
    """The folder's name, fit to be part of a version's; empty when nothing of it is."""
    last = output_dir.rstrip("/").rpartition("/")[2].lower()
    return re.sub(r"[^a-z0-9.]+", "-", last)[:63].strip("-.")


def flags(arguments: Sequence[str]) -> Iterator[tuple[str, str, str | None]]:
    """Each argument; the name, with underscores, of the flag it is (or ""); and the flag's value where it has one.

    Backslashes where a pasted command broke its lines are dropped.
    """
    stripped = (re.sub(r"^\\+(?=--)", "", argument) for argument in arguments)
    rest = [argument for argument in stripped if argument.strip("\\\n\r ") or not argument]
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if not name.startswith("--"):
            yield argument, "", None
        elif equals:
            yield argument, name[2:].replace("-", "_"), value
        else:
            has_value = bool(rest) and not rest[0].startswith("--")
            yield argument, name[2:].replace("-", "_"), rest.pop(0) if has_value else None


def _is_false(value: str | None) -> bool:
    return value is not None and value.lower() in _FALSE
