"""The house stays in order: imports run one way, only ``nerf`` needs nerfstudio, light rooms stay light."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_capture import orbit, write_transforms

from mtcm_nerfstudio.decisions import read

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "mtcm_nerfstudio"

FLOORS = (
    ("decisions",),
    ("geometry",),
    ("capture",),
    ("report", "tokens"),
    ("evidence",),
    ("consistency",),
    ("verdicts", "views"),
    ("filter_settings",),
    ("filtering",),
    ("decision_files",),
    ("filter_report",),
    ("viewer",),
    ("nerf",),
    ("cli",),
)
"""The rooms from the ground up; rooms on one floor do not know each other."""

FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

LIGHT = tuple(
    f"mtcm_nerfstudio.{name}" for name in ("decisions", "geometry.intrinsics", "geometry.poses", "capture.capture")
)
HEAVY = ("torch", "cv2", "pycolmap", "matplotlib", "sklearn", "nerfstudio")

TOP_LEVEL = {
    *("mtcm_nerfstudio", "scripts", "tests", "data", "pyproject.toml"),
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"),
}

BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "nerfstudio":
            raise ImportError("nerfstudio is blocked")
sys.meta_path.insert(0, Blocker())
"""


def sources(package: Path = PACKAGE) -> Iterator[Path]:
    return iter(sorted(package.rglob("*.py")))


def module_name(path: Path, package: Path = PACKAGE) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str | None:
    """The room of a dotted module of ours; None for the package itself and for everybody else's modules."""
    parts = module.split(".")
    return parts[1] if parts[0] == PACKAGE.name and len(parts) > 1 else None


def imported_modules(path: Path, package: Path = PACKAGE) -> set[str]:
    """Every module that a file imports, inside functions too, with relative imports resolved."""
    package_parts = module_name(path, package).split(".")
    if path.name != "__init__.py":
        package_parts = package_parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package_parts[: len(package_parts) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            found.update(f"{source}.{alias.name}" for alias in node.names)
    return found


def arrows_upward(package: Path = PACKAGE) -> list[str]:
    """Every import that does not run to a floor below, or to the importing room itself."""
    wrong = []
    for path in sources(package):
        room = room_of(module_name(path, package))
        if room is None:
            continue
        for module in sorted(imported_modules(path, package)):
            target = room_of(module)
            if target not in (None, room) and not FLOOR_OF[target] < FLOOR_OF[room]:
                wrong.append(f"{path.relative_to(package)} imports {module}")
    return wrong


def run_python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


def needs_nerfstudio(path: Path) -> bool:
    return room_of(module_name(path)) == "nerf"


def write_package(folder: Path, files: dict[str, str]) -> Path:
    package = folder / PACKAGE.name
    for name, text in files.items():
        file = package / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return package


def test_every_room_has_its_floor():
    rooms = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir() if path.name[0] not in "_."}
    assert rooms <= set(FLOOR_OF), f"not in the plan of the house: {rooms - set(FLOOR_OF)}"


def test_no_import_runs_upward():
    assert arrows_upward() == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("capture/read.py", "from mtcm_nerfstudio.tokens.tokens import FrameTokens"),
        ("tokens/tokens.py", "import mtcm_nerfstudio.report.plot_style"),
        ("tokens/tokenise.py", "from mtcm_nerfstudio.evidence.match_capture import match_capture"),
        ("geometry/bearings.py", "from mtcm_nerfstudio.evidence import keypoints"),
        ("geometry/poses.py", "from mtcm_nerfstudio.capture.capture import Frame"),
        ("views/facility_location.py", "from mtcm_nerfstudio import verdicts"),
        ("consistency/score.py", "def late():\n    from ..views import facility_location"),
        ("filtering.py", "from .cli.filter import main"),
        ("decisions.py", "from .capture.capture import Capture"),
    ],
)
def test_an_import_that_runs_upward_is_found(tmp_path, file, line):
    package = write_package(tmp_path, {"nerf/parser.py": "from mtcm_nerfstudio.filtering import keep", file: line})
    assert len(arrows_upward(package)) == 1
    assert arrows_upward(package)[0].startswith(f"{file} imports")


def test_only_the_room_nerf_names_nerfstudio():
    users = [
        str(path.relative_to(PACKAGE))
        for path in sources()
        if not needs_nerfstudio(path) and any(module.split(".")[0] == "nerfstudio" for module in imported_modules(path))
    ]
    assert users == []


@pytest.mark.slow
def test_everything_but_nerf_imports_without_nerfstudio():
    modules = [module_name(path) for path in sources() if not needs_nerfstudio(path)]
    result = run_python(BLOCKER + "import importlib\n" + "\n".join(f"importlib.import_module({m!r})" for m in modules))
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_filtering_works_without_nerfstudio(tmp_path):
    capture = write_transforms(tmp_path / "capture", orbit(10))
    arguments = ["ns-mtcm-filter", "--data", str(capture), "--output-dir", str(tmp_path / "out")]
    result = run_python(
        BLOCKER + f"sys.argv = {arguments}\nfrom mtcm_nerfstudio.cli.filter import entrypoint\nentrypoint()"
    )
    assert result.returncode == 0, result.stderr
    assert len(read(tmp_path / "out" / "filtered_views.json").frames) == 10


def test_without_nerfstudio_the_room_nerf_does_not_import():
    """The proof above can fail: the blocker really blocks."""
    users = [path for path in sources() if needs_nerfstudio(path) and path.name == "register_dataparser.py"]
    assert len(users) == 1
    result = run_python(BLOCKER + f"import {module_name(users[0])}")
    assert result.returncode != 0
    assert "nerfstudio is blocked" in result.stderr


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_stay_light(module):
    result = run_python(f"import sys, {module}\nprint(*(name for name in {HEAVY} if name in sys.modules))")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == ""


def test_the_top_level_holds_nothing_else():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout: what belongs to the repository cannot be told from what does not")
    names = {line.strip('"').split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_no_file_is_called_utils_or_common():
    names = {part for path in sources() for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert not {name for name in names if name in ("utils", "util", "common", "helpers", "misc")}


@pytest.mark.parametrize("pattern", [r"weights_only\s*=\s*False", r"allow_pickle\s*=\s*True", r"\bpickle\b"])
def test_nothing_is_loaded_through_pickle(pattern):
    """A checkpoint or an embedding comes from anywhere; reading it must not be able to run code."""
    assert [str(path) for path in sources() if re.search(pattern, code_of(path))] == []


def code_of(path: Path) -> str:
    """A file's code without its comments and docstrings, which may say why pickle is not used."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [entry for entry in body if not is_bare_string(entry)] or [ast.Pass()]
    return ast.unparse(tree)


def is_bare_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
