"""The rules of the house, read off its source: who imports whom, and each thing once."""

import ast
import collections
import dataclasses
import functools
import graphlib
import inspect
import pathlib
import re

import pytest

from aima_jax.checkpoint import Metadata
from aima_jax.models import AIMAConfig, CLIPConfig, ResNetConfig, TextConfig, ViTConfig
from aima_jax.models.layers import Block
from aima_jax.text import tokenizer
from configs import common

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = ("aima_jax", "tfds_builders", "configs")
# What is copied out, to run where this package is not.
WITHOUT_US = {f"aima_jax/convert/pytorch/{name}.py" for name in ("aima_clip", "run")}
if not (ROOT / "aima_jax").is_dir():
    pytest.skip("reads the source of a checkout", allow_module_level=True)
DATASET_MODULES = {"schema", "wording", "builder"}  # of each dataset's folder


@functools.cache
def trees(*folders):
    """The syntax tree of each file in some folders, by its path from the root."""
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    paths = {path.relative_to(ROOT).as_posix(): path for path in found}
    return {name: ast.parse(paths[name].read_text()) for name in paths.keys() - WITHOUT_US}


def where(found, *folders):
    """The files with a node for which `found` is true."""
    return {
        path
        for path, tree in trees(*folders or PACKAGES).items()
        if any(found(node) for node in ast.walk(tree))
    }


def called(node):
    """The last name of what a node calls, "" where it calls nothing."""
    if not isinstance(node, ast.Call):
        return ""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def docstrings(tree):
    """Each definition of a module, the module among them, and its docstring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield node, ast.get_docstring(node) or ""


def literals(tree):
    """The constants of a module without its docstrings."""
    docs = {id(node.body[0].value) for node, docstring in docstrings(tree) if docstring}
    return [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in docs]


def imported(tree, *, anywhere=False):
    """The modules that a file imports, at its top or anywhere, and the members of a package."""
    for node in ast.walk(tree) if anywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module


def module_name(path):
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


# Decision 9: aima_jax knows no dataset.


def test_the_package_names_no_dataset():
    """But for UPAR, whose protocol has its name, and for what a folder is, which is none."""
    datasets = {path.parent.name for path in (ROOT / "tfds_builders").glob("*/builder.py")}
    assert {"peta", "upar"} <= datasets
    named = re.compile("|".join({*datasets, "market1501"} - {"upar", "folder"}))
    for path, tree in trees("aima_jax").items():
        assert not [x for x in literals(tree) if isinstance(x, str) and named.search(x)], path


# One direction.


def test_imports_run_downwards():
    """Nothing imports, at its top, what imports it."""
    modules = {module_name(path): tree for path, tree in trees("aima_jax").items()}
    graph = {
        name: {other for other in imported(tree) if other in modules and other != name}
        for name, tree in modules.items()
    }
    # A package offers what its modules hold: who asks one of its modules does not ask for that.
    packages = {module_name(p) for p in trees("aima_jax") if p.endswith("__init__.py")}
    for name, others in graph.items():
        graph[name] = {o for o in others if not (o in packages and name.startswith(f"{o}."))}
    assert tuple(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ("models", "data training evaluation convert search files checkpoint workdir fields"),
        ("text", "models data training evaluation convert search checkpoint"),
        ("data", "models training evaluation convert search checkpoint losses"),
        ("losses", "sharding distributed models data training evaluation"),
        ("pairs", "sharding distributed models data training evaluation"),
        ("evaluation", "training convert search"),
        ("training", "search"),
        ("convert", "search"),
    ],
)
def test_what_is_lower_knows_nothing_of_what_is_higher(lower, higher):
    forbidden = tuple(f"aima_jax.{name}" for name in higher.split())
    for path, tree in trees("aima_jax").items():
        if path.startswith((f"aima_jax/{lower}/", f"aima_jax/{lower}.py")):
            wrong = [name for name in imported(tree) if f"{name}.".startswith(forbidden)]
            assert not wrong, path


# Decision 10: the platform is a value.


def test_no_module_asks_the_process_what_it_runs_on():
    backend = {"default_backend", "get_backend", "backends", "xla_bridge"}

    def asks(node):
        name = getattr(node, "attr", getattr(node, "name", ""))
        return isinstance(node, ast.Attribute | ast.alias) and name in backend

    assert not where(asks)
    # To place arrays on all of them, and to note in environment.json what a run used.
    listing = where(lambda node: called(node) in {"devices", "local_devices"}, "aima_jax")
    assert listing == {
        "aima_jax/sharding.py",
        "aima_jax/evaluation/similarity.py",
        "aima_jax/workdir.py",
    }
    looking = {"device_kind", "compute_capability"}
    assert where(lambda node: getattr(node, "attr", "") in looking, "aima_jax") == {
        "aima_jax/platform.py",
        "aima_jax/models/attention.py",  # of a Platform
        "aima_jax/workdir.py",
    }


def test_the_platform_is_in_no_config_and_no_checkpoint():
    for kind in (AIMAConfig, CLIPConfig, ViTConfig, ResNetConfig, TextConfig, Metadata):
        assert "platform" not in {field.name for field in dataclasses.fields(kind)}
    assert not {"platform", "backend", "device"} & {*common.get_config().keys()}


# Decision 11: a block reads like the paper, and no trick acts on a whole process.


def test_a_block_reads_like_the_paper():
    source = inspect.getsource(Block.__call__)
    assert "self.attention(self.attention_norm(x)" in source
    assert "return x + self.mlp(self.mlp_norm(x))" in source
    assert len(ast.parse(inspect.cleandoc(source)).body[0].body) == 2
    layers = trees("aima_jax")["aima_jax/models/layers.py"]
    classes = [node for node in layers.body if isinstance(node, ast.ClassDef)]
    assert {"Block", "Attention", "MLP"} <= {node.name for node in classes}
    for node in classes:
        for method in node.body:
            inner = [n for n in ast.walk(method) if isinstance(n, ast.FunctionDef | ast.Lambda)]
            assert len(inner) <= 1, f"{node.name} has a function in a function"


def test_no_trick_acts_on_the_whole_process():
    tricks = {
        "execv",
        "execve",
        "execvp",
        "clear_caches",
        "malloc_trim",
        "collect",
        "set_threshold",
    }
    assert not where(lambda node: called(node) in tricks)
    # How memory is handed out is for a program to say, once, before all else.
    assert not where(lambda node: called(node) == "keep_memory")
    assert where(lambda node: called(node) == "keep_memory", "run.py", "benchmarks")
    environment = {"environ", "putenv", "setdefault"}
    setting = where(
        lambda node: (
            isinstance(node, ast.Subscript)
            and isinstance(node.ctx, ast.Store)
            and getattr(node.value, "attr", "") in environment
        )
    )
    assert not setting


# Decision 13: the losses are a table.


def test_losses_are_named_in_their_table_alone():
    names = {"info_nce", "sdm", "map", "attribute_iou"}
    for path, tree in trees("aima_jax").items():
        if path != "aima_jax/losses.py":
            assert not names.intersection(x for x in literals(tree) if isinstance(x, str)), path


# Decision 14: each thing once.


def test_one_way_to_open_a_picture():
    def opens(node):
        return called(node) == "open" and getattr(node.func.value, "id", "") == "Image"

    def opens_pictures(node):
        return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and opens(node)

    assert where(opens_pictures) == {"aima_jax/data/pictures.py"}
    assert not where(lambda node: called(node) in {"imread", "imdecode", "exif_transpose"})


def test_one_encoder():
    """Beside the step, which trains, and what compares a conversion."""
    towers = {"image_features", "encode_image"}

    def encodes(node):
        return isinstance(node, ast.Call) and getattr(node.func, "attr", "") in towers

    assert where(encodes) == {
        "aima_jax/convert/huggingface.py",
        "aima_jax/evaluation/encoder.py",
        "aima_jax/models/aima.py",
        "aima_jax/training/objective.py",
    }


def test_one_verification():
    comparing = where(lambda node: called(node) == "compare")
    assert comparing == {
        "aima_jax/checkpoint.py",
        "aima_jax/data/prepared.py",
        "aima_jax/search/folder_gallery.py",
    }


def test_one_way_to_write_a_file():
    """Whole or not at all, but for what is in a folder that is moved as a whole."""
    whole = {"atomic_write", "TemporaryDirectory"}
    writing = {"write_text", "write_bytes", "savez", "savez_compressed", "save_file", "savefig"}
    elsewhere = set()
    for path, tree in trees("aima_jax").items():
        inside = {
            id(node)
            for block in ast.walk(tree)
            if isinstance(block, ast.With)
            and any(called(item.context_expr) in whole for item in block.items)
            for node in ast.walk(block)
        }
        if any(called(n) in writing and id(n) not in inside for n in ast.walk(tree)):
            elsewhere.add(path)
    assert elsewhere == {"aima_jax/data/prepared.py"}


def test_the_numbers_of_clip_are_said_once():
    assert (tokenizer.START_TOKEN, tokenizer.END_TOKEN) == (49406, 49407)
    numbers = {49408, 49407, 49406, 49405, 77}
    for path, tree in trees("aima_jax", "configs").items():
        said = [x for x in literals(tree) if type(x) is int and x in numbers]
        own = sorted({49405, 77, 49408}) if path == "aima_jax/text/tokenizer.py" else []
        assert sorted(said) == own, path


# Decision 15: one name, one thing.


def test_no_two_modules_have_one_name():
    names = collections.Counter(pathlib.Path(path).stem for path in trees(*PACKAGES))
    may_repeat = DATASET_MODULES | {"__init__", "__main__"}
    assert not {name for name, count in names.items() if count > 1} - may_repeat
    assert not {"utils", "helpers", "misc", "common_utils"} & names.keys()


def test_no_two_classes_or_functions_have_one_name():
    """Public ones; datasets' folders offer the same, and so do subcommands and configs."""
    places = collections.defaultdict(set)
    for path, tree in trees(*PACKAGES).items():
        if pathlib.Path(path).stem in DATASET_MODULES:
            continue
        for node in tree.body:
            names = [node.name] if isinstance(node, ast.ClassDef | ast.FunctionDef) else []
            if isinstance(node, ast.Assign):  # names of types
                assigned = [target.id for target in node.targets if isinstance(target, ast.Name)]
                names = [name for name in assigned if not name.isupper()]
            for name in names:
                if not name.startswith("_"):
                    places[name].add(path)
    interfaces = {"add_arguments", "run", "get_config"}
    repeated = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert not repeated.keys() - interfaces, repeated


# How it is written.


def test_files_are_short():
    folders = (*PACKAGES, "tests", "benchmarks")
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in trees(*folders)}
    assert max(lengths.values()) <= 400, max(lengths, key=lengths.__getitem__)


def test_docstrings_are_imperatives_or_noun_phrases():
    """And what is raised is listed in one form."""
    verbs = (
        "Add Append Build Check Choose Close Compile Compute Copy Count Create Decode Describe "
        "Draw Encode End Find Gather Give Join Keep Load Look Make Mark Move Open Pack Place Plan "
        "Prepare Print Put Rank Read Remove Render Replace Resize Return Run Save Say Show Sort "
        "Start Stop Take Tell Train Turn Wait Write Yield"
    )
    third_person = re.compile(rf"({verbs.replace(' ', '|')})e?s\b(?! of\b)")
    errors = re.compile(r"Raises \w|; \w+Error\b|^\w+Error (unless|where)")
    for path, tree in trees(*PACKAGES).items():
        for node, docstring in docstrings(tree):
            name = getattr(node, "name", path)
            assert not third_person.match(docstring), f"{path}: {name}"
            assert not errors.search(docstring), f"{path}: {name}"


def test_the_readme_is_read_in_one_look():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


PAGES = ["README.md", "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: pathlib.Path(page).stem)
def test_docs_name_files_that_are_there(page):
    """What performance.md tells of version 0.1.0 names that version's files."""
    text = (ROOT / page).read_text()
    if "performance" in str(page):
        text = text[text.index("## That the numbers stay") :]
    paths = {*trees(*PACKAGES, "tests", "benchmarks", "docs"), *WITHOUT_US, "run.py"}
    names = {pathlib.Path(path).name for path in paths}
    assert not set(re.findall(r"`(?:[\w./]+/)?(\w+\.py)`", text)) - names


def test_no_test_imports_a_test():
    for path, tree in trees("tests").items():
        modules = [name for name in imported(tree, anywhere=True) if name]
        assert not any(re.search(r"(^|\.)test_", name) for name in modules), path
