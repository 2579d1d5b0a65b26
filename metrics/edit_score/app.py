"""Space: scores, changes and a diagnosis from the predictions that `hf-ftedit evaluate --output_dir` saved."""

from typing import Any

from hf_ftedit import EditError, compare, results_table, score
from hf_ftedit.evaluation.scoring import PROTOCOLS


def report(before: str | None, after: str | None, protocol: str = "auto") -> tuple[str, dict[str, Any]]:
    """The table of one or two files of predictions (Parquet or JSONL), and all scores."""
    files = {name: file for name, file in (("before", before), ("after", after)) if file}
    if not files:
        return "Upload predictions-before.parquet, predictions-after.parquet, or both.", {}
    if list(files) == ["after"]:
        files = {"before": files["after"]}  # one measurement is one column
    try:
        results: dict[str, Any] = {name: score(file, protocol) for name, file in files.items()}
        if len(files) == 2:
            results["change"] = compare(files["before"], files["after"], results["after"]["protocol"])
    except EditError as error:
        return str(error), {}
    return results_table(results), results


def main() -> None:
    """Serve the page."""
    import gradio as gr

    gr.Interface(
        fn=report,
        inputs=[
            gr.File(label="predictions before", file_types=[".parquet", ".jsonl"]),
            gr.File(label="predictions after", file_types=[".parquet", ".jsonl"]),
            gr.Dropdown(["auto", *PROTOCOLS], value="auto", label="protocol"),
        ],
        outputs=[gr.Code(label="scores"), gr.JSON(label="all values")],
        title="Edit score",
        description="Efficacy, generalization and locality of factual edits, and their harmonic mean.",
        flagging_mode="never",
    ).launch()


if __name__ == "__main__":
    main()
