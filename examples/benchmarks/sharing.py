"""
Measure what becomes of shared edits: verified, merged in several ways, revoked, and continued from.

    python examples/benchmarks/sharing.py               # the embedded model: 20 + 20 edits, 5 revoked
    python examples/benchmarks/sharing.py --bench       # the bench model and CounterFact: 50 + 50 edits, 10 revoked

Every step is a verb of the command line, run on folders, as a user would run it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from edit_benchmark import COLUMNS, bench_model, parser_of

BENCH = "--learning_rate 1e-3 --lora_r 64 --lora_alpha 128 --num_train_epochs 5".split()
COMBINATIONS = ("cat", "svd", "ties", "ties_svd", "dare_ties", "dare_linear", "linear")
HEADER = """\
| run | s | edits | edit score | efficacy | generalization | locality | |
|---|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--bench", action="store_true", help="the bench model and CounterFact of --shared")
    parser.add_argument("--num_edits", type=int, help="edits of each adapter (20; with --bench 50)")
    parser.add_argument("--num_revoked", type=int, help="edits to revoke (5; with --bench 10)")
    options = parser.parse_args()
    n_edits, n_revoked = (50, 10) if options.bench else (20, 5)
    with tempfile.TemporaryDirectory() as folder:
        Measured(Path(folder), options, options.num_edits or n_edits).run(options.num_revoked or n_revoked)


class Measured:
    """Two adapters in a folder, and what is made of them."""

    def __init__(self, folder: Path, options: argparse.Namespace, n: int) -> None:
        from hf_ftedit import read_edits
        from hf_ftedit.data.records import write_jsonl
        from hf_ftedit.models.loading import asset

        self.folder, self.flags = folder, []
        source: Any = asset("edits.jsonl")
        if options.bench:
            model, data = bench_model(options.shared), options.shared / "data"
            source, pool = data / "counterfact.json", data / "counterfact_easyedit.json"
            self.flags = [*BENCH, "--model_name_or_path", model, "--locality_pool", str(pool)]
        self.base = self.flags[len(BENCH) :]
        self.edits = read_edits(source, limit=2 * n)
        for name, part in (("a", self.edits[:n]), ("b", self.edits[n:])):
            write_jsonl(part, folder / f"{name}.jsonl")

    def run(self, n_revoked: int) -> None:
        for name in ("a", "b"):
            self.call("train", "--edits", self.at(f"{name}.jsonl"), "--output_dir", self.at(name), *self.flags)
        model = self.base[:2]
        print(HEADER)
        self.row("a alone", "a")
        self.row("b alone", "b")
        start = time.perf_counter()
        code = self.call("verify", self.at("a"), *model)
        print(f"| verify a | {time.perf_counter() - start:.0f} | | | | | | exit code {code} |")
        for kind in COMBINATIONS:
            merge = ["merge", self.at("a"), self.at("b"), "--combination_type", kind, "--output_dir", self.at(kind)]
            self.row(f"merge, {kind}", kind, [*merge, *model])
        together = ["train", "--edits", self.at("ab.jsonl"), "--output_dir", self.at("together"), *self.flags]
        (self.folder / "ab.jsonl").write_text("".join((self.folder / f"{name}.jsonl").read_text() for name in "ab"))
        self.row("trained at once", "together", together)
        names = [edit.edit_id for edit in self.edits[:n_revoked]]
        revoke = ["train", "--adapter", self.at("a"), "--revoke", *names, "--output_dir", self.at("fewer"), *self.base]
        results = self.row(f"a without {n_revoked}", "fewer", revoke, last=False)
        found = results["revoked"]
        print(f" of {found['n_probes']} revoked prompts {found['back']:.1f} % are answered as by the base model |")
        more = ["train", "--adapter", self.at("a"), "--edits", self.at("b.jsonl"), "--output_dir", self.at("more")]
        results = self.row("a, then b", "more", [*more, *self.base], last=False)
        kept = results["retention"]
        print(f" efficacy of a's edits {kept['before']['efficacy']:.1f}, then {kept['after']['efficacy']:.1f} |")

    def row(self, label: str, name: str, args: list[str] | None = None, *, last: bool = True) -> dict[str, Any]:
        """Run a verb and print the scores of the folder that it wrote."""
        start = time.perf_counter()
        if args:
            self.call(*args)
        seconds = f"{time.perf_counter() - start:.0f}" if args else "—"
        results = json.loads((self.folder / name / "eval_results.json").read_text(encoding="utf-8"))
        scores = " | ".join(f"{results['after'][score]:.1f}" for score in COLUMNS)
        print(f"| {label} | {seconds} | {results['n_edits']} | {scores} |", end=" |\n" if last else "", flush=True)
        return results

    def call(self, *args: str) -> int:
        """A verb of the command line, in silence."""
        from hf_ftedit.cli.app import main

        with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.redirect_stderr(shown):
            code = main(args)
        if code > 1:
            raise SystemExit(shown.getvalue())
        return code

    def at(self, name: str) -> str:
        return str(self.folder / name)


if __name__ == "__main__":
    main()
