"""The pages of README.md and docs/: their links, their commands, and what is generated of them."""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

import densessl
from benchmarks.reference import __main__ as reference
from densessl.cli import VERBS
from densessl.core.options import pairs
from densessl.d2_transfer import protocols
from densessl.pretrain import config as pretraining

ROOT = Path(densessl.__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md")),
    ROOT / "SECURITY.md",
    *sorted(DOCS.rglob("*.md")),
]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WRAPPED = 100  # columns
OUTPUT = "text"  # the language of a block with what a program printed
GENERATED = {"evidence", "scale"}


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return re.sub(r"^ {4}.*$", "", text, flags=re.MULTILINE)


def anchor(heading: str) -> str:
    """The fragment that GitHub, and the site, give a heading."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", text.replace("*", "").strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {anchor(found) for found in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_and_their_anchors_are_there(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        if fragment:
            assert fragment in anchors(there), f"{page.name}: {target}"
        if page.parent == DOCS:
            assert there.is_relative_to(DOCS), f"{page.name}: {target} is not on the site"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sentences_are_wrapped(page):
    wide = [
        line
        for line in prose(page).splitlines()
        if len(line) > WRAPPED and line[0] not in "|!"  # rows of a table, pictures
    ]
    assert page.stem in GENERATED or wide == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_code_are_narrow(page):
    """As they are read on a screen, or on a phone; what a program printed is as it was."""
    wide = [line for block in blocks(page) for line in block.splitlines() if len(line) > WRAPPED]
    assert wide == []


def navigation() -> list[str]:
    """The files that mkdocs.yml names, in their order."""

    class Loader(yaml.SafeLoader):
        """What the tags of Python stand for is mkdocs' matter."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)

    def files(node):
        if isinstance(node, str):
            yield node
        for each in node.values() if isinstance(node, dict) else node:
            if node is not each and not isinstance(node, str):
                yield from files(each)

    return list(files(yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), Loader)["nav"]))


def test_every_page_is_in_the_navigation_once():
    assert sorted(navigation()) == sorted(
        str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")
    )


@pytest.mark.parametrize("name", ["verbs.md", "options.md"])
def test_the_reference_is_what_is_generated(name):
    text = reference.pages()[name]
    assert (DOCS / name).read_text("utf-8") == text, "run: python -m benchmarks.reference docs"


def test_the_api_has_every_public_name():
    shown = re.findall(r"^::: densessl\.(\w+)$", (DOCS / "api.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(shown) == sorted({*densessl.__all__} - {"main", "convert", "results", "transfer"})


def test_options_have_the_comments_of_their_declarations():
    of_pretrain = reference.options_page().split("## Classification protocols")[0]
    rows = dict(re.findall(r"^\| `([\w.]+)` (\|.*)$", of_pretrain, re.MULTILINE))
    beside, above = "a function of it, epoch, sample and step |", "list: a text file; coco: a JSON;"
    assert rows["SEED"] == f"| `0` | >= 0 | all that is random is {beside}"
    assert above in rows["DATA.SOURCE"]
    assert rows["SETSIM.THRESHOLD"].startswith("| `0.7` | > 0, <= 1 | δ:")
    assert set(pretraining.option_names(pretraining.defaults())) <= rows.keys() | {"METHOD.OPTIONS"}


def blocks(page: Path, languages: Sequence[str] | None = None) -> list[str]:
    """A page's blocks of code (but output), or those in ``languages``; those that are only
    indented, with it, are in either."""
    text = page.read_text(encoding="utf-8")
    found = [
        block
        for language, block in FENCE.findall(text)
        if (language != OUTPUT if languages is None else language in languages)
    ]
    return found + re.findall(r"(?:^ {4}.*\n)+", FENCE.sub("", text), re.MULTILINE)


def commands(page: Path) -> list[str]:
    """The commands of ``densessl`` in a page's blocks of code, each on one line."""
    lines = re.sub(r"\\\n\s*", "", "".join(blocks(page, ("", "sh", "bash")))).splitlines()
    found = []
    for line in lines:
        line = line.replace("$seed", "0")
        for call in re.findall(r"(?:^|; do |-m )\s*(densessl .*?)(?:; done|$)", line.strip()):
            found.append(re.split(r" {4,}(?!#)", call)[0])  # what is said of it in a list
    return found


COMMANDS = [(page.name, each) for page in PAGES for each in commands(page)]


class Parsed(Exception):
    """Raised in place of the work: the command's words were understood."""


@pytest.fixture
def parse(monkeypatch):
    """``parse(words)``: what the verb's own parser makes of them; errors are raised."""

    def stopping(name):
        method = getattr(argparse.ArgumentParser, name)

        def run(self, *args, **kwargs):
            raise Parsed(method(self, *args, **kwargs))

        monkeypatch.setattr(argparse.ArgumentParser, name, run)

    stopping("parse_args")
    stopping("parse_intermixed_args")

    def made(words):
        verb, *rest = words
        module = __import__(f"densessl.{VERBS[verb][0]}", fromlist=["main"])
        with pytest.raises(Parsed) as caught:
            module.main(rest)
        return caught.value.args[0]

    return made


@pytest.mark.parametrize("page, command", COMMANDS)
def test_commands_are_understood(page, command, parse):
    words = [word.strip("[]") for word in shlex.split(command, comments=True) if word != "…"]
    _, verb, *_ = words
    args = parse(words[1:])
    if verb == "pretrain" and args.config and not args.config.endswith(".yaml"):
        pretraining.load(args.config, pairs(args.overrides))
    if verb == "transfer" and args.protocol and not re.search(r"\.py:|\.(yaml|py)$", args.protocol):
        protocols.find(args.protocol)


def test_there_are_commands_of_every_verb():
    shown = {shlex.split(command, comments=True)[1] for _, command in COMMANDS}
    assert shown >= VERBS.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_verbs_in_a_sentence_are_verbs(page):
    for verb in re.findall(r"`densessl ([a-z]\w*)", prose(page)):
        assert verb in VERBS, f"{page.name}: densessl {verb}"


def test_the_citation_and_the_forms_for_issues_can_be_read():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == densessl.__version__ and citation["license"] == "Apache-2.0"
    forms = list((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert {form.stem for form in forms} == {"bug", "question"}
    for form in forms:
        body = yaml.safe_load(form.read_text("utf-8"))["body"]
        assert all({"id", "attributes"} <= part.keys() for part in body)


def test_the_site_builds_in_strict_mode_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("material", reason="make docs installs it")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    html = [path.read_text("utf-8") for path in (tmp_path / "site").rglob("*.html")]
    assert len(html) >= len(navigation())
    assert not any('class="mermaid"' in text for text in html)  # it would be fetched
    for text in html:
        loaded = re.findall(r'<(?:script|img|source|iframe)[^>]*?src="?([^">\s]+)', text)
        loaded += re.findall(r'<link[^>]*?href="?([^">\s]+)', text)
        assert not [each for each in loaded if re.match(r"(https?:)?//", each)]
