"""What happens inside a training process: transformers' Trainer with peft and DeepSpeed, and its callbacks."""
