"""What the README says is true: its commands are tried or checked against ``--help``, its links and figures exist."""

import dataclasses
import functools
import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from mtcm_nerfstudio.decisions import Decisions, FrameDecision, Reason, from_json, to_json

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PROGRAMS = Path(sys.executable).parent

NERFSTUDIO_FIRST_WORDS = {"ns-train": 1, "ns-render": 1, "ns-export": 1}
"""How many words after these programs choose what the flags belong to."""


@dataclass(frozen=True)
class Command:
    """One command line of a code block."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(self.words)

    @property
    def program(self) -> str:
        return self.words[0]

    def parts(self) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
        """Return (words that ask for help, flags that this help must name), one pair a subcommand.

        ``ns-train nerfacto --data D mtcm --threshold 0.5`` asks nerfacto for ``--data`` and nerfacto mtcm for the rest.
        """
        rest = list(self.words[1:])
        count = NERFSTUDIO_FIRST_WORDS.get(self.program, 0)
        chosen, rest = rest[:count], rest[count:]
        cut = rest.index("mtcm") if self._has_trailing_parser(rest) else len(rest)
        pairs = [((self.program, *chosen), flags_of(rest[:cut]))]
        if cut < len(rest):
            pairs.append(((self.program, *chosen, "mtcm"), flags_of(rest[cut + 1 :])))
        return pairs

    def _has_trailing_parser(self, rest: list[str]) -> bool:
        return self.program == "ns-train" and any(
            word == "mtcm" and not rest[i - 1].startswith("--pipeline") for i, word in enumerate(rest)
        )


def flags_of(words: list[str]) -> tuple[str, ...]:
    return tuple(word.split("=")[0] for word in words if word.startswith("--"))


def code_blocks(markdown: str) -> list[str]:
    return re.findall(r"^```(?:bash|sh|console)\n(.*?)^```", markdown, flags=re.MULTILINE | re.DOTALL)


def commands(markdown: str) -> list[Command]:
    """Every command of the README's shell blocks, continued lines joined and comments taken off."""
    lines = "\n".join(code_blocks(markdown)).replace("\\\n", " ").splitlines()
    split = [shlex.split(line, comments=True) for line in lines]
    return [Command(tuple(words)) for words in split if words]


def relative_targets(markdown: str) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", markdown) + re.findall(r'(?:src|href)="([^"]+)"', markdown)
    return [target.split("#")[0] for target in found if not re.match(r"[a-z]+:", target) and not target.startswith("#")]


@functools.cache
def help_of(words: tuple[str, ...]) -> str:
    result = subprocess.run(
        [str(PROGRAMS / words[0]), *words[1:], "--help"],
        capture_output=True,
        text=True,
        timeout=300,
        env={"PATH": f"{PROGRAMS}:/usr/bin:/bin", "HOME": str(Path.home()), "COLUMNS": "400", "NO_COLOR": "1"},
    )
    assert result.returncode == 0, f"{shlex.join(words)} --help: {result.stderr}"
    return result.stdout


def names_flag(text: str, flag: str) -> bool:
    """Whether a help text names a flag, or its opposite (tyro shows ``--flag, --no-flag``), as a whole word."""
    return re.search(rf"(?<![\w.-]){re.escape(flag.replace('_', '-'))}(?![\w.-])", text.replace("_", "-")) is not None


ALL = commands(README)
OURS = [command for command in ALL if command.program.startswith("ns-")]
SAMPLE_FILTERS = [
    command
    for command in OURS
    if command.program == "ns-mtcm-filter" and any(word.startswith("data/") for word in command.words)
]


def test_the_readme_shows_every_command_of_ours():
    assert {command.program for command in OURS} >= {
        "ns-mtcm-process",
        "ns-mtcm-train",
        "ns-mtcm-filter",
        "ns-train",
        "ns-eval",
        "ns-render",
    }


@pytest.mark.parametrize("command", [command for command in ALL if command.program == "bash"], ids=str)
def test_scripts_exist_and_parse(command):
    script = REPOSITORY / command.words[1]
    assert script.is_file()
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0


@pytest.mark.parametrize("command", [command for command in ALL if command.program == "python"], ids=str)
def test_python_scripts_know_the_flags(command):
    script = REPOSITORY / command.words[1]
    result = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert [flag for flag in flags_of(list(command.words)) if not names_flag(result.stdout, flag)] == []


@pytest.mark.slow
@pytest.mark.parametrize("command", OURS, ids=str)
def test_commands_know_the_flags(command):
    for words, flags in command.parts():
        text = help_of(words)
        assert [flag for flag in flags if not names_flag(text, flag)] == []


@pytest.mark.slow
@pytest.mark.parametrize("command", SAMPLE_FILTERS, ids=str)
def test_filtering_the_sample_works_as_shown(command, tmp_path):
    (tmp_path / "data").symlink_to(REPOSITORY / "data")
    assert "--output-dir" in command.words or "--dry-run" in command.words, "the sample must stay as it is"
    result = subprocess.run(
        [str(PROGRAMS / command.program), *command.words[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr
    assert "kept" in result.stdout


def test_a_flag_that_does_not_exist_is_found():
    """The check above can fail."""
    text = "--data PATH  (required)\n--dry-run, --no-dry-run\n--filter.threshold FLOAT"
    assert names_flag(text, "--data")
    assert names_flag(text, "--dry_run")
    assert not names_flag(text, "--dat")
    assert not names_flag(text, "--threshold")


def test_a_command_is_cut_where_its_flags_change_owner():
    command = commands("```bash\nns-train nerfacto --data D \\\n  mtcm --threshold 0.5 # why\n```\n")[0]
    assert command.parts() == [
        (("ns-train", "nerfacto"), ("--data",)),
        (("ns-train", "nerfacto", "mtcm"), ("--threshold",)),
    ]
    literal = Command(("ns-train", "m", "--pipeline.datamanager.dataparser", "mtcm", "--data", "D"))
    assert literal.parts() == [(("ns-train", "m"), ("--pipeline.datamanager.dataparser", "--data"))]


def test_the_tables_of_results_are_those_of_the_result_files(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    from make_readme_figures import with_tables

    assert README.count("<!-- from data/results/") == README.count("<!-- end -->") > 5
    assert with_tables(README, REPOSITORY) == README
    with pytest.raises(ValueError, match=r"results/natural\.md: Nowhere: no such table"):
        with_tables("<!-- from data/results/natural.md: Nowhere -->\n<!-- end -->", REPOSITORY)


@pytest.mark.parametrize("target", relative_targets(README))
def test_links_lead_somewhere(target):
    assert (REPOSITORY / target).exists()


def test_the_decision_shown_is_one_that_the_program_reads():
    shown = re.findall(r"^```json\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    assert len(shown) == 1
    entry = json.loads(shown[0])
    assert list(entry) == [field.name for field in dataclasses.fields(FrameDecision)]
    frames = {"frames": [entry], "suggested": []}
    empty = Decisions(capture_digest="", settings={}, checkpoint="", embedder="", threshold=0.5, frames=())
    read = from_json(json.dumps(json.loads(to_json(empty)) | frames))
    assert not read.frames[0].kept
    assert entry["reason"] in get_args(Reason)


@pytest.mark.parametrize("reason", get_args(Reason))
def test_every_reason_is_named(reason):
    assert reason in README


@pytest.mark.parametrize(
    ("source", "block"), re.findall(r"<!-- from (\S+) -->\n(.*?)<!-- end -->", README, flags=re.DOTALL)
)
def test_figures_are_those_of_the_results(source, block):
    """What stands between the marks is copied from the file that a script wrote."""
    results = (REPOSITORY / source).read_text(encoding="utf-8")
    missing = [line for line in block.strip().splitlines() if line.strip() and line not in results]
    assert missing == []
