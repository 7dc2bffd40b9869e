"""Trains and evaluates AIMA: `python run.py --config=configs/synthetic.py`."""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from aima_jax.allocation import restart_keeping_memory

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="configs/<dataset>.py; any field as --config.<field>=<value>"
)
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run (default: runs/<config>)")
MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "replay"],
    "train and then evaluate, only evaluate, or take the next step again and save nothing",
)
COORDINATOR = flags.DEFINE_string("coordinator", None, "address:port of host 0, for many hosts")
PROCESSES = flags.DEFINE_integer("processes", None, "number of hosts")
PROCESS = flags.DEFINE_integer("process", None, "number of this host, from 0")
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> int:
    import jax

    from aima_jax import distributed, evaluation, training

    logging.set_verbosity(logging.WARNING)
    config = CONFIG.value
    name = pathlib.Path(flags.FLAGS["config"].config_filename).stem
    workdir = pathlib.Path(WORKDIR.value or pathlib.Path("runs", name))
    try:
        if argv[1:]:
            raise ValueError(f"{argv[1]!r} is no flag; set fields as --config.batch_size=128")
        distributed.start(
            COORDINATOR.value, PROCESSES.value, PROCESS.value, deterministic=config.deterministic
        )
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


def parse_flags(argv: list[str]) -> list[str]:
    try:
        remaining = flags.FLAGS(argv)
        CONFIG.value  # noqa: B018  (a config that cannot be loaded says so only when it is used)
        return remaining
    except (AttributeError, KeyError, flags.Error, TypeError, ValueError, OSError) as error:
        from aima_jax.config import renamed_flags

        message = str(error)
        if isinstance(error, AttributeError | KeyError):
            field = message.strip("\"'")
            message = f"unknown config field {field!r}; see configs/common.py"
        print(f"error: {renamed_flags(argv) or message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    restart_keeping_memory()
    app.run(lambda argv: sys.exit(main(argv)), flags_parser=parse_flags)
