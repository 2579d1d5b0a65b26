# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-ftedit>=0.2"]
#
# [tool.hf-jobs]
# flavor = "l4x1"
# timeout = "2h"
# secrets = ["HF_TOKEN"]
# ///
"""
Edit facts on a machine of the Hub: train, push, and measure again what was pushed.

    hf jobs uv run examples/hf_jobs.py --repo_id user/my-edits --edits user/my-facts \
        --model_name_or_path HuggingFaceTB/SmolLM2-1.7B-Instruct --chat_template
    uv run examples/hf_jobs.py ...  # the same on this machine

`uv` installs what the comment on top names; `hf jobs` takes the machine from there, and your token. A job has no files
of yours: give the edits as a dataset of the Hub. Before this package is on PyPI, write
`hf-ftedit @ git+https://github.com/hf-ftedit/hf-ftedit` in place of `hf-ftedit>=0.2` there; `--with` does not help.
The exit code is that of `hf-ftedit verify`: 0 where every published claim holds.
"""

import argparse
import tempfile

from hf_ftedit.cli import main as hf_ftedit


def run() -> int:
    parser = argparse.ArgumentParser(epilog="All other options are those of `hf-ftedit train`.", allow_abbrev=False)
    parser.add_argument("--repo_id", required=True, help="where to push the adapter, such as user/my-edits")
    options, training = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        push = ["--push_to_hub", "--hub_model_id", options.repo_id]
        if code := hf_ftedit(["train", *training, *push, "--output_dir", folder]):
            return code
    return hf_ftedit(["verify", options.repo_id])


if __name__ == "__main__":
    raise SystemExit(run())
