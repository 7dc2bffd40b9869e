"""Every command line of README, docs and notebook is understood, outside the checkout if it may."""

import ast
import configparser
import fnmatch
import functools
import importlib.util
import json
import os
import pathlib
import re
import runpy
import shlex
import subprocess
import sys

import pytest

from aima_jax import cli
from aima_jax.fields import check_config

ROOT = pathlib.Path(__file__).resolve().parents[1]


def pages():
    """Name and text of each page."""
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        if path.name != "CHANGELOG.md":  # it names what was, too
            yield path.name, path.read_text(encoding="utf-8")
    notebook = json.loads((ROOT / "notebooks" / "search.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code":
            text = "".join(f"`{line}`\n" for line in re.findall(r"^[!%](.*)", text, re.MULTILINE))
        yield "search.ipynb", text


def commands():
    """Every command line, with the page that it is on."""
    found = {}
    for page, text in pages():
        fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        blocks = [block for language, block in fenced if not language]
        spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))
        for line in (*"\n".join(blocks).splitlines(), *spans):
            for part in line.split("&&"):
                words = shlex.split(part, comments=True) if part.count("'") % 2 == 0 else []
                while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # an environment variable
                    words = words[1:]
                if words and words[0] in ("python", "aima", "pip", "pytest") and words[1:]:
                    found.setdefault(tuple(words), page)
    return [pytest.param(words, id=f"{page}: {' '.join(words)}") for words, page in found.items()]


def test_there_are_commands():
    assert len(commands()) >= 20


@pytest.mark.parametrize("words", commands())
def test_a_command_is_understood(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program, *arguments = words
    if program == "aima" and arguments[0] in cli._COMMANDS:
        called = []
        monkeypatch.setattr(f"{cli._COMMANDS[arguments[0]][0]}.run", called.append)
        assert cli.main(arguments) == 0
        assert len(called) == 1
    elif program == "pip":
        (extras,) = {word for word in arguments if word.startswith(".")} or {"."}
        names = re.findall(r"\w+", extras)
        text = (ROOT / "setup.cfg").read_text()
        assert all(re.search(rf"^{name} =$", text, re.MULTILINE) for name in names)
    elif program == "pytest":
        assert importlib.util.find_spec("xdist") or "-n" not in arguments
    elif arguments[0] == "run.py":
        fields = [word.replace("=configs", f"={ROOT}/configs") for word in arguments[1:]]
        fields = [re.sub(r"(seed)=S$", r"\1=0", word) for word in fields]
        program = runpy.run_path(str(ROOT / "run.py"))  # with flags of its own each time
        monkeypatch.setattr(sys, "argv", ["run.py", *fields])  # where ml_collections looks, too
        assert not program["parse"](sys.argv)
        check_config(program["CONFIG"].value)
    elif arguments[:2] == ["-m", "pytest"]:
        assert all((ROOT / name).exists() for name in arguments[2:] if not name.startswith("-"))
    elif arguments[0] == "-m":
        assert importlib.util.find_spec(arguments[1]), arguments[1]
    else:
        shown = help_of(arguments[0])
        flags = {word.split("=")[0] for word in arguments if word.startswith("--")}
        assert all(flag in shown for flag in flags), flags


def imported(path):
    """The modules that a file imports, by their first name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize(
    "script", [ROOT / "run.py", *ROOT.glob("benchmarks/*.py")], ids=lambda path: path.name
)
def test_what_a_script_imports_of_ours_is_installed_or_beside_it(script):
    """An editable install maps the packages that setup.cfg names, and no others."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    included = setup["options.packages.find"]["include"].split()
    assert included
    for name in imported(script):
        if (ROOT / name).is_dir() or (ROOT / f"{name}.py").exists():
            beside = (script.parent / f"{name}.py").exists()
            assert beside or any(fnmatch.fnmatch(name, each) for each in included), name


@functools.cache
def help_of(script):
    """What a script prints that is run outside the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, str(ROOT / script), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout
