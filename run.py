"""Train and evaluate AIMA: `python run.py --config=configs/synthetic.py`."""

import io
import os
import pathlib
import sys

from absl import flags, logging
from ml_collections import config_flags

FLAGS = flags.FlagValues()  # private to this file, so that a notebook can `%run` it again
CONFIG = config_flags.DEFINE_config_file(
    "config",
    help_string="configs/<dataset>.py; any field as --config.<field>=<value>",
    flag_values=FLAGS,
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder of the run (default: runs/<config>)", flag_values=FLAGS
)
MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "replay"],
    "train and then evaluate, only evaluate, or repeat the next step without saving",
    flag_values=FLAGS,
)
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "address:port of host 0, for many hosts", flag_values=FLAGS
)
PROCESSES = flags.DEFINE_integer("processes", None, "number of hosts", flag_values=FLAGS)
PROCESS = flags.DEFINE_integer("process", None, "number of this host, from 0", flag_values=FLAGS)
flags.DEFINE_boolean("help", False, "show this help", short_name="h", flag_values=FLAGS)
flags.mark_flag_as_required("config", flag_values=FLAGS)


class UnreadPipe(io.FileIO):
    """A pipe whose reader may close it, like `head`: later output is discarded."""

    def write(self, data, /) -> int:
        """Return the number of bytes written."""
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            return len(data)


def outlive_readers() -> None:
    """Let a run continue after the reader of its output has gone."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream and stream is getattr(sys, f"__{name}__") and not stream.isatty():
            pipe = io.BufferedWriter(UnreadPipe(stream.fileno(), "w", closefd=False))
            text = io.TextIOWrapper(pipe, stream.encoding, stream.errors, line_buffering=True)
            setattr(sys, name, text)


def main(argv: list[str]) -> int:
    """Run the command line; return its exit status, 75 if it saved and stopped on a signal."""
    if {"--help", "-h"} & set(argv):
        print(f"{__doc__}\n{FLAGS.get_help()}")
        return 0
    if message := parse(argv):
        print(f"error: {message}", file=sys.stderr)
        return 2

    import jax

    from aima_jax import distributed, evaluation, training
    from aima_jax.platform import keep_memory

    logging.set_verbosity(logging.WARNING)
    config = CONFIG.value
    name = pathlib.Path(config_flags.get_config_filename(FLAGS["config"])).stem
    workdir = WORKDIR.value or pathlib.Path("runs", name)
    try:
        distributed.start(COORDINATOR.value, PROCESSES.value, PROCESS.value)
        if jax.default_backend() == "cpu":
            keep_memory()
        with distributed.report_lost_hosts():
            if MODE.value == "replay":
                training.replay(config, workdir)
                return 0
            if MODE.value == "train":
                training.train(config, workdir)
            results = evaluation.evaluate(config, workdir)
        if jax.process_index() == 0:
            print(evaluation.results_table(results))
    except training.Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        return interrupted.exit_code
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return distributed.end_process(2)
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        return distributed.end_process(130)
    return 0


def parse(argv: list[str]) -> str:
    """Parse the flags and load the config; return an error message."""
    try:
        remaining = FLAGS(argv)[1:]
        CONFIG.value  # noqa: B018  (a config that cannot be loaded raises only when accessed)
    except (AttributeError, KeyError, flags.Error, TypeError, ValueError, OSError) as error:
        from aima_jax.fields import renamed_flags

        message = str(error)
        if isinstance(error, AttributeError | KeyError):
            field = message.strip("\"'")
            message = f"unknown config field {field!r}; see configs/common.py"
        return renamed_flags(argv) or message
    if remaining:
        return f"{remaining[0]!r} is not a flag; set fields as --config.batch_size=128"
    return ""


if __name__ == "__main__":
    outlive_readers()
    status = main(sys.argv)
    if status == 130 and "IPython" not in sys.modules:
        # Exit immediately: a thread that is still compiling would make Python abort at exit.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    if status:
        sys.exit(status)
