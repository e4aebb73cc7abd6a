"""What a worker process is set up with before anything heavy is imported: threads, quiet libraries, its fingerprint."""

from __future__ import annotations

import os
import platform
import warnings
from importlib.metadata import PackageNotFoundError, version

from autopeft.study import PROTOCOL

_PACKAGES = ("autopeft", "torch", "transformers", "peft")


def prepare(threads: int) -> None:
    """Sets the number of threads, and keeps the libraries' notices out of the log."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["MKL_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    warnings.simplefilter("ignore")
    import torch  # reads the environment when it is imported

    torch.set_num_threads(threads)


def fingerprint(device: str) -> dict[str, str]:
    """Versions and device that this process's measurements rest on."""
    import torch

    found = {"python": platform.python_version(), "machine": platform.machine(), "protocol": PROTOCOL}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "source"
    on_gpu = device.startswith("cuda") and torch.cuda.is_available()
    return found | {"device": torch.cuda.get_device_name(torch.device(device)) if on_gpu else "cpu"}
