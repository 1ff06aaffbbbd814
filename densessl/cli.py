"""The front door: ``densessl VERB …`` runs a package's own main()."""

import errno
import importlib
import logging
import os
import sys
from contextlib import nullcontext

import densessl

from .core import command, files, install, names, stops
from .core.errors import DenseSSLError, EnvironmentLacks, InputError, nearest, report

VERBS = {  # verb: (module of densessl whose main(argv) does it, one line of help)
    "pretrain": ("pretrain.main", "train a backbone without labels; resumes by itself"),
    "convert": (
        "d2_transfer.convert.main",
        "a checkpoint to weights, proved by running both networks",
    ),
    "inspect": ("d2_transfer.convert.inspection", "what a checkpoint is, and what it converts to"),
    "transfer": ("d2_transfer.main", "fine-tune under a paper's protocol, k trials, averaged"),
    "prepare": ("d2_transfer.datasets.prepare.main", "write the labels that a data set lacks"),
    "data": ("annotations.main", "your annotations, in any form: what they hold, as COCO's JSON"),
    "table": ("d2_transfer.tables.main", "paper-style tables from trial records"),
    "compare": ("d2_transfer.compare.main", "is B better than A, as far as their trials tell"),
    "plot": ("d2_transfer.plots.main", "training curves, and the papers' figures from records"),
    "report": ("d2_transfer.report.main", "one page of all that lies in a folder"),
    "audit": ("pretrain.audit", "what is in a folder of images: unreadable, small, duplicate ones"),
    "advise": ("pretrain.advise", "what to pretrain with on your images, why, and what it costs"),
    "show": ("pretrain.show", "pictures: views, attention, sets, matches"),
    "scenes": ("pretrain.scenes.main", "write the procedural data set in the real layouts"),
    "submit": ("slurm.main", "the same work as SLURM jobs"),
    "reproduce": ("slurm.reproduce", "every job behind a published table, as one graph"),
    "study": ("slurm.study.main", "is pretraining worth it on your images, by how much, how sure"),
    "status": ("slurm.status", "what became of the jobs of a folder"),
    "cancel": ("slurm.cancel", "take a folder's jobs out of the queue"),
    "demo": ("slurm.demo", "the whole pipeline in miniature, on a laptop CPU"),
    "doctor": ("d2_transfer.doctor", "what is installed, what is missing, how to fix it"),
}
# fmt: off
OF_PATHS = (  # errors of a path that a person named: it cannot be one, or it is not theirs
    errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP,
    errno.EACCES, errno.EPERM, errno.EROFS,
)
# fmt: on
# Verbs whose work is long, and is saved: a stop at any moment is exit code 75.
RESUMED = ("pretrain", "convert", "transfer", "report", "reproduce", "study", "demo")
JOB = "job"  # the verb that batch files call; not for people


def usage() -> str:
    lines = "\n".join(f"  {verb:10s} {line}" for verb, (_, line) in VERBS.items())
    return f"usage: densessl VERB …\n\n{lines}\n\n'densessl VERB --help' says more of each."


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return its exit code (0 done, 2 input, 3 environment, 75 stopped early)."""
    argv = sys.argv[1:] if argv is None else argv
    # Threads that spin while they wait starve each other where cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if hasattr(sys.stdout, "reconfigure"):  # names may hold bytes that are no UTF-8
        sys.stdout.reconfigure(errors=names.ERRORS)
    try:
        verb = argv[0] if argv else ""
        stopping = stops.unfinished(verb) if verb in RESUMED else nullcontext()
        with command.named(["densessl", *argv]), stopping:
            code = run(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `densessl … | head` closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except DenseSSLError as error:
        report(f"densessl {argv[0]}: {names.visible(error)}", error.exit_code)
        return error.exit_code
    except ModuleNotFoundError as error:  # wherever it is imported: `pip install densessl` lacks it
        lacks = install.lacking(error)
        if lacks is None:
            raise
        report(f"densessl {argv[0]}: {lacks}", lacks.exit_code)
        return lacks.exit_code
    except OSError as error:
        if error.errno in files.DISK_FULL:
            file = f"{names.brief(error.filename)}: " if error.filename else ""
            report(
                f"densessl {argv[0]}: {file}{error.strerror}; what was written is whole: make "
                "room and run the same command again",
                EnvironmentLacks.exit_code,
            )
            return EnvironmentLacks.exit_code
        if error.errno not in OF_PATHS or error.filename is None:
            raise
        path = names.brief(error.filename)
        reason = (error.strerror or str(error)).lower()
        report(f"densessl {argv[0]}: {path}: {reason}", InputError.exit_code)
        return InputError.exit_code
    except KeyboardInterrupt:
        logging.getLogger("densessl").warning("interrupted")
        return 130


def run(argv: list[str]) -> int:
    """Hand ``argv`` to the main() of its verb."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"densessl {densessl.__version__}")
        return 0
    verb, *rest = argv
    if verb == JOB:
        return importlib.import_module("densessl.slurm.task").main(rest)
    if verb not in VERBS:
        hint = nearest(verb, VERBS)
        meant = f" Did you mean '{hint}'?" if hint else ""
        given = names.brief(verb)
        print(
            f"densessl: unknown verb '{given}'.{meant} Known: {', '.join(VERBS)}", file=sys.stderr
        )
        return 2
    return importlib.import_module(f"densessl.{VERBS[verb][0]}").main(rest) or 0
