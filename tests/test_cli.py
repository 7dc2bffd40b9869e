"""The console script `aima`: quick to answer, one style of flags, one form of an error."""

import argparse
import importlib
import subprocess
import sys

import pytest

from aima_jax import cli


def parsers(parser):
    """A parser and those of its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from parsers(one)


@pytest.mark.parametrize("name", cli._COMMANDS)
def test_flags_have_one_style(name):
    parser = argparse.ArgumentParser()
    importlib.import_module(cli._COMMANDS[name][0]).add_arguments(parser)
    actions = [action for one in parsers(parser) for action in one._actions]
    flags = {flag for action in actions for flag in action.option_strings} - {"-h", "--help"}
    assert all(flag.startswith("--") and "-" not in flag[2:] for flag in flags), flags
    assert all(action.help for action in actions if action.option_strings)


def test_help_needs_no_subcommand_to_be_imported():
    code = """
import sys
from aima_jax import cli
try:
    cli.main(["--help"])
except SystemExit:
    heavy = {"jax", "numpy", "tfds_builders", "aima_jax.search"}
    assert not heavy & set(sys.modules)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name in shown.stdout for name in cli._COMMANDS)


@pytest.mark.parametrize("name", cli._COMMANDS)
def test_the_module_of_a_subcommand_is_an_alias(name):
    module = cli._COMMANDS[name][0].removesuffix(".__main__")
    command = [sys.executable, "-m", module, "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.startswith(f"usage: aima {name}")


def test_an_interruption_exits_with_130(monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr("tfds_builders.prepare.run", interrupted)
    assert cli.main(["prepare", "pa100k"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_reader_that_has_enough_ends_it_without_a_word():
    """As `aima search … | head -1`."""
    code = """
import sys, types
from aima_jax import cli
many = types.ModuleType("many")
many.add_arguments, many.run = lambda parser: None, lambda options: print("a line\\n" * 2**16)
sys.modules["many"] = many
cli._COMMANDS["many"] = ("many", "prints much")
sys.exit(cli.main(["many"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "a line\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 0
