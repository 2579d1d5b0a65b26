"""`python -m hf_ftedit …` and `accelerate launch -m hf_ftedit …`: the same program as `hf-ftedit …`."""

from hf_ftedit.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
