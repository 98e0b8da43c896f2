"""The article's command as it is printed, line breaks lost, backslashes and a missing space left; and short ones."""

from __future__ import annotations

PARAMS = (
    r'params="--stage sft \--model_name_or_path /data/oss_bucket_0/Qwen_14B_Chat_ms_v100/  \--do_train '
    r"\--dataset_dir data \--dataset xuanji \--template chatml  \--finetuning_type  full  \--output_dir file_path  "
    r"\--overwrite_cache \--per_device_train_batch_size 2 \--gradient_accumulation_steps 4 "
    r"\--lr_scheduler_type cosine  \--logging_steps 5 \--save_strategy epoch \--save_steps 10000 "
    r"\--learning_rate 2e-6 \--num_train_epochs 3.0 \--warmup_ratio 0.15 \--warmup_steps 0 \--weight_decay 0.1 "
    r"\--fp16 ${fp16} \--bf16 ${bf16} \--deepspeed ds_config.json \--max_source_length 4096 "
    r'\--max_target_length 4096 \--use_fast_tokenizer False \--is_shuffle True \--val_size 0.0 "'
)
PAI = (
    "pai -name pytorch112z-project algo_platform_dev-Dscript='${job_path}'  -DentryFile='-m torch.distributed.launch "
    '--nnodes=${workerCount} --nproc_per_node=${node}  ${entry_file}\'-DuserDefinedParameters="${params}"'
    "-DworkerCount=${workerCount}-Dcluster=${resource_param_config}-Dbuckets=${oss_info}${end_point}"
)
COMMAND = f"{PARAMS}\n{PAI}\n"

VARIABLES = {
    "fp16": "False",
    "bf16": "True",
    "job_path": "oss://team/jobs/xuanji.tar.gz",
    "workerCount": "2",
    "node": "8",
    "resource_param_config": '{"worker":{"gpu":800,"cpu":4850,"memory":262144}}',
    "oss_info": "oss://models/?role_arn=acs:ram::1:role/x&host=",
    "end_point": "oss-cn-hangzhou.aliyuncs.com",
}
BUCKETS = "-Dbuckets=oss://a/,oss://b/deep/"


def line(parameters: str = "--output_dir /data/oss_bucket_0/out/r1", *options: str) -> str:
    """A `pai` line with two buckets."""
    return f'pai -name pytorch112z {BUCKETS} -DuserDefinedParameters="{parameters}" ' + " ".join(options)
