"""The rules of the house: which room may import which, and the limits that keep files and functions readable.

A failure names each file and line that breaks the rule. `docs/conventions.md` ("Rooms") has the rules in words.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

SCRIPTS = "scripts"
# Imports point down: a room may import the rooms of the rows below its own, and itself.
ROWS = (
    ("tests",),
    ("benchmarks",),
    (SCRIPTS,),
    ("training", "inference"),
    ("visualization", "cli"),
    ("loss_functions", "evaluation"),
    ("models", "datasets"),
    ("inverse_warp",),
    ("geometry", "files"),
)
ROW_OF = {room: row for row, rooms in enumerate(ROWS) for room in rooms}
ROOT_SCRIPTS = ("train", "test_depth", "test_pose", "test_make3d", "demo", "predict", "export", "hubconf")
SCRIPT_FOLDERS = ("data", "weights")

MOST_ROOT_MODULES = 10
MOST_LINES_OF_TRAIN = 120
MOST_LINES_OF_A_FUNCTION = 60

# Packages that take from half a second to several seconds to import, and that few commands need.
IMPORTED_LATE = (
    "torchvision",
    "pycolmap",
    "timm",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "huggingface_hub",
    "scipy.stats",
)

PAPER_NETWORKS = re.compile(r"\b(DispNet|PoseExpNet)\b")
FILES_OF_PAPER_NETWORKS = ("disp_net.py", "pose_exp_net.py", "__init__.py", "version_1.py")  # in models/


def top_level(root: Path) -> set[str]:
    """The names that this project's imports can begin with: modules of the root, and folders with modules."""
    folders = {folder.name for folder in root.iterdir() if folder.is_dir() and any(folder.glob("*.py"))}
    return {file.stem for file in root.glob("*.py")} | {name for name in folders if not name.startswith(".")}


def python_files(root: Path = ROOT) -> list[Path]:
    """All Python files of the project, relative to the root."""
    files = list(root.glob("*.py"))
    for name in top_level(root):
        files += (root / name).rglob("*.py")
    return sorted(file.relative_to(root) for file in files)


def room_of(file: Path) -> str:
    """The room of a Python file, given relative to the root."""
    first = file.parts[0] if len(file.parts) > 1 else file.stem
    return SCRIPTS if first in (*ROOT_SCRIPTS, *SCRIPT_FOLDERS) else first


def product_files() -> list[Path]:
    return [file for file in python_files() if room_of(file) != "tests"]


@lru_cache
def source(file: Path) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


def imports(text: str) -> Iterator[tuple[int, str]]:
    """(line, module) of each absolute import in a source text, in functions, too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module


def import_errors(file: Path, text: str, ours: set[str]) -> list[str]:
    """A line for each import of a file that does not point down.

    Args:
        ours: the names that imports of this project begin with.
    """
    room, errors = room_of(file), []
    for line, module in imports(text):
        if module.partition(".")[0] not in ours:
            continue
        other = room_of(Path(*module.split(".")).with_suffix(".py"))
        if other not in ROW_OF:  # test_each_file_has_a_room names it
            continue
        between_scripts = room == other == SCRIPTS
        if between_scripts or (other != room and ROW_OF[other] <= ROW_OF[room]):
            errors.append(f"{file}:{line}: {room} must not import {module}, of {other}")
    return errors


def code_lines(text: str) -> set[int]:
    """The lines that hold code: no blank lines, no comments. A string of several lines counts with all of them."""
    nothing = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in nothing:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return lines


def function_lengths(text: str) -> Iterator[tuple[int, str, int]]:
    """(line, name, lines of code) of each function: without its docstring, comments and blank lines."""
    code = code_lines(text)
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        own = {line for line in code if node.lineno <= line <= (node.end_lineno or node.lineno)}
        if ast.get_docstring(node, clean=False) is not None:
            own -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
        yield node.lineno, node.name, len(own)


def lines_with(file: Path, pattern: str | re.Pattern) -> list[str]:
    lines = source(file).splitlines()
    return [f"{file}:{number}: {line.strip()}" for number, line in enumerate(lines, 1) if re.search(pattern, line)]


def report(title: str, errors: list[str]) -> None:
    if errors:
        pytest.fail("\n".join([f"{title}:", *errors]), pytrace=False)


def test_each_file_has_a_room():
    """The root holds scripts and two modules of the method; each folder with modules is a room."""
    report("no room for", [str(file) for file in python_files() if room_of(file) not in ROW_OF])


def test_imports_point_down():
    ours = top_level(ROOT)
    known = [file for file in python_files() if room_of(file) in ROW_OF]
    report(
        "imports that do not point down", [line for file in known for line in import_errors(file, source(file), ours)]
    )


@pytest.mark.parametrize(
    ("file", "text", "allowed"),
    [
        ("training/run.py", "from models import build", True),
        ("training/run.py", "import training.options", True),
        ("models/layers.py", "from training.run import Run", False),
        ("models/layers.py", "def build():\n    import loss_functions", False),
        ("models/layers.py", "from datasets.layout import Scene", False),
        ("cli/flags.py", "import visualization.colours", False),
        ("inference/pictures.py", "from visualization.colours import colourise", True),
        ("inference/pictures.py", "from training.options import TrainOptions", False),
        ("evaluation/speed_scale.py", "import loss_functions", False),
        ("loss_functions.py", "from inverse_warp import sample", True),
        ("inverse_warp.py", "from loss_functions import objective", False),
        ("geometry/pose.py", "from files.errors import InputError", False),
        ("demo.py", "import train", False),
        ("demo.py", "from data.prepare_kitti import main", False),
        ("data/make_world.py", "from datasets.synthetic import write_world", True),
        ("training/run.py", "from train import train_step", False),
        ("training/run.py", "from benchmarks.surroundings import device_name", False),
        ("benchmarks/train_step.py", "from train import train_step", True),
        ("benchmarks/train_step.py", "from benchmarks.surroundings import device_name", True),
        ("tests/test_train.py", "import train", True),
        ("geometry/pose.py", "import torch", True),
    ],
)
def test_the_import_rule_itself(file, text, allowed):
    ours = {"train", "data", *ROW_OF} - {SCRIPTS}
    assert bool(import_errors(Path(file), text, ours)) is not allowed


def test_few_modules_in_the_root():
    names = sorted(file.name for file in ROOT.glob("*.py"))
    assert len(names) <= MOST_ROOT_MODULES, f"{len(names)} Python modules in the root: {', '.join(names)}"


def test_train_py_is_short():
    lines = len(source(Path("train.py")).splitlines())
    assert lines <= MOST_LINES_OF_TRAIN, f"train.py:{MOST_LINES_OF_TRAIN + 1}: it has {lines} lines"


def test_functions_are_short():
    errors = [
        f"{file}:{line}: {name} has {count} lines of code"
        for file in python_files()
        for line, name, count in function_lengths(source(file))
        if count > MOST_LINES_OF_A_FUNCTION
    ]
    report(f"functions of more than {MOST_LINES_OF_A_FUNCTION} lines", errors)


def test_how_lines_are_counted():
    text = 'def f(\n    a,\n):\n    """Two\n    lines."""\n\n    # why\n    b = """x\n    y"""\n    return a  # so\n'
    assert list(function_lengths(text)) == [(1, "f", 6)]


def test_grid_sample_is_named_in_one_file():
    """One sampler has the pixel convention of the whole project; a benchmark compares it with the usual warp."""
    files = [file for file in product_files() if file != Path("benchmarks/warp.py")]
    named = {file: lines_with(file, r"\bgrid_sample\b") for file in files}
    others = [line for file, lines in named.items() if file != Path("inverse_warp.py") for line in lines]
    assert named[Path("inverse_warp.py")]
    report("grid_sample outside inverse_warp.py", others)


def test_product_code_has_no_assert():
    """`python -O` drops asserts; what a user can cause raises InputError, a wrong shape ValueError."""
    errors = [
        f"{file}:{node.lineno}: {ast.unparse(node)[:80]}"
        for file in product_files()
        for node in ast.walk(ast.parse(source(file)))
        if isinstance(node, ast.Assert)
    ]
    report("asserts in product code", errors)


def test_only_scripts_and_cli_know_argparse():
    allowed = (SCRIPTS, "cli", "benchmarks")
    files = [file for file in product_files() if room_of(file) not in allowed]
    report("argparse outside scripts and cli/", [e for f in files for e in lines_with(f, r"\b(argparse|Namespace)\b")])


def test_only_models_name_the_papers_networks():
    """Other code takes any network of models.DEPTH_NETS and models.POSE_NETS."""
    allowed = [Path("models") / name for name in FILES_OF_PAPER_NETWORKS]
    allowed.append(Path("benchmarks/port.py"))  # the port's networks have the same names
    files = [file for file in product_files() if file not in allowed]
    report("DispNet or PoseExpNet outside their files", [line for f in files for line in lines_with(f, PAPER_NETWORKS)])


def test_slow_packages_are_imported_where_they_are_used():
    """Within functions, so that `--help` and commands that need none of them start without."""
    errors = [
        f"{file}:{node.lineno}: {module}"
        for file in product_files()
        for node in ast.parse(source(file)).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for _, module in imports(ast.unparse(node))
        if any(f"{module}.".startswith(f"{late}.") for late in IMPORTED_LATE)
    ]
    report("imports at the top of a module", errors)
