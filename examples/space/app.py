"""`hf-ftedit playground` as a Space; adapters that all visitors find switched on go in front of the options."""

from hf_ftedit.cli import main

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
raise SystemExit(main(["playground", "--model_name_or_path", MODEL, "--chat_template", "--host", "0.0.0.0"]))
