"""What mkdocs cannot do by itself: pages made from the code, links into the repository, docstrings of the HF form."""

import ast
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from hf_ftedit.cli.arguments import MORE_OPTIONS, WORDS, used_options
from hf_ftedit.cli.options import OPTIONS
from hf_ftedit.options import choices_of

ROOT = Path(__file__).parent.parent
# Pages that are files of the repository elsewhere, with the folder their links start from.
COPIES = {"benchmark_runs.md": "examples/benchmarks/README.md", "changelog.md": "CHANGELOG.md"}
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the guides that the navigation does not name."""
    guides: list[str] = next(section["Guides"] for section in config.nav or [] if "Guides" in section)
    there = sorted(f"guides/{path.name}" for path in (ROOT / "docs" / "guides").glob("*.md"))
    guides.extend(page for page in there if page not in guides)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand nowhere in docs/."""
    for name, source in COPIES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the options into their page, and send links to files outside docs/ to the repository."""
    if page.file.src_uri == "quick_start.md":  # one title, and tables as wide as the command prints them
        page.meta["hide"] = ["toc"]
    if page.file.src_uri == "reference/command_line.md":
        return f"{markdown}\n{options_of_verbs()}"
    place = COPIES.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def led(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(place), match[1]))
        for name, source in COPIES.items():
            if path == source:
                path = f"docs/{name}"
        if path.startswith("docs/") and files.get_file_from_path(path.removeprefix("docs/")):
            here = posixpath.dirname(f"docs/{page.file.src_uri}")
            return posixpath.relpath(path, here) + (match[2] or "")
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"{config.extra['repository']}/{kind}/main/{path}{match[2] or ''}"

    return LINK.sub(led, markdown)


def on_page_content(html: str, **kwargs: Any) -> str:
    """Mark the names of options, which are not to be broken after their dashes."""
    return html.replace("<code>--", '<code class="option">--')


def options_of_verbs() -> str:
    """A section for each verb, from the settings that `--help` shows."""
    parts = []
    for verb, options in OPTIONS.items():
        source = ast.parse((ROOT / "hf_ftedit" / "cli" / f"{verb}.py").read_text(encoding="utf-8"))
        about = (ast.get_docstring(source) or "").split("\n\n")[0].partition(": ")[2]
        word = {"?": f" {WORDS[verb][0].upper()}", "*": " ADAPTER ..."}[WORDS[verb][1]] if verb in WORDS else ""
        parts += [f"## hf-ftedit {verb}\n\n{about[:1].upper()}{about[1:]}\n"]
        parts += [f"```text\nhf-ftedit {verb}{word} [--config FILE.yaml] [--OPTION VALUE ...]\n```\n"]
        parts += ["| option | what | default |\n|---|---|---|"]
        defaults = options()
        for name, option in used_options(verb).items():
            choices = ", ".join(f"`{choice}`" for choice in choices_of(name, options))
            text = option.metadata["help"] + (f" One of {choices}." if choices else "")
            default = getattr(defaults, name)
            cell = "" if default in (None, []) else f"`{default}`"
            parts += [f"| `--{name}` | {text} | {cell} |"]
        if verb in MORE_OPTIONS:
            more = re.sub(r"(--\w+)", r"`\1`", " ".join(MORE_OPTIONS[verb].split()))
            parts += [f"\nAnd {more}."]
        parts += [""]
    return "\n".join(parts)


PUBLIC = set(
    re.findall(r" as (\w+)$", (ROOT / "hf_ftedit" / "__init__.pyi").read_text(encoding="utf-8"), re.MULTILINE)
)
_NAME = re.compile(r"\[`~?([\w.]+)`\]")
_ITEM = re.compile(r"^    (\S[^(:]*?)(?: \((.*?)\))?:(?= |$)")
_BETWEEN_TYPES = re.compile(r"(?:, or |, | or )(?![^\[]*\])")


class HuggingFaceForm(griffe.Extension):
    """Docstrings of the Hugging Face form in the one that griffe reads."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite an object's docstring, if it has one."""
        if obj.docstring:
            maker = obj.members.get("__init__") if isinstance(obj, griffe.Class) else obj
            for each in getattr(maker, "parameters", ()):
                if str(each.default).startswith("option("):  # of our dataclasses: the default, and a line of --help
                    each.default = each.default.arguments[0]
            types = {each.name: str(each.annotation) for each in getattr(maker, "parameters", ())}
            obj.docstring.value = google_form(obj.docstring.value, types if maker else None)


def google_form(text: str, types: Mapping[str, str] | None) -> str:
    """
    The docstring with links in Markdown, and with the types that the signature's `types` do not tell.

    A class without a signature of its own has `Attributes`, and their defaults.
    """
    has_fields = types is None
    lines, section = [], ""
    for line in text.splitlines():
        if line and not line.startswith(" "):
            section = line
            line = "Attributes:" if line == "Args:" and has_fields else line
        elif section in ("Args:", "Raises:", "Returns:", "Yields:") and (item := _ITEM.match(line)):
            name, kind = _plain(item[1]), _plain(item[2] or "")
            default = re.search(r", \*optional\*(?:, defaults to (.*))?$", kind)
            if section == "Args:" and (types or {}).get(name, "Any") == "Any" and kind:
                kind_alone = kind[: default.start()] if default else kind
                name += f" ({_BETWEEN_TYPES.sub(' | ', kind_alone)})"
            rest = line[item.end() :]
            if has_fields and default and default[1]:
                rest = f" ({default[1]}){rest}"
            line = f"    {name}:{rest}"
        lines.append(_NAME.sub(_link, line))
    return "\n".join(lines)


def _plain(text: str) -> str:
    return _NAME.sub(lambda match: match[1].rpartition(".")[2], text).replace("`", "")


def _link(match: re.Match[str]) -> str:
    name = match[1].rpartition(".")[2]
    return f"[`{name}`][hf_ftedit.{name}]" if name in PUBLIC else f"`{name}`"
