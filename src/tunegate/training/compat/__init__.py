"""Other people's command lines and jobs: LLaMA-Factory's flags, PAI's lines."""
