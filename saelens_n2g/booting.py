"""Booting: from a name to a TransformerLens bridge, on a device, quietly."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from saelens_n2g.errors import InputError
from saelens_n2g.progress import errors_only


def find_device(name: str) -> torch.device:
    """`auto` (the first CUDA GPU, else the CPU) or a device by name. Raises `InputError` if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError("device", "auto, cpu or cuda[:N]", repr(name)) from None
    if device.type not in ("cpu", "cuda"):
        raise InputError("device", "auto, cpu or cuda[:N]", repr(name))
    if device.type == "cuda" and not (device.index or 0) < torch.cuda.device_count():
        raise InputError("device", f"auto, cpu or one of {torch.cuda.device_count()} GPUs that are there", repr(name))
    return device


def boot(name: str, device: torch.device, dtype: torch.dtype, revision: str | None) -> Any:
    """A bridge of the model `name`. Raises `InputError` as `Subject.load` says."""
    from safetensors import SafetensorError
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.model_bridge.sources.tl_legacy import TL_LEGACY_PREFIXES

    asked, name = name, resolve(name)
    if revision is not None and Path(name).exists():
        raise InputError(f"revision of {asked}", "none (only the hub keeps revisions)", repr(revision))
    try:
        if name.startswith(TL_LEGACY_PREFIXES):
            if revision is not None:
                raise InputError(f"revision of {name}", "none (legacy checkpoints have no revisions)", revision)
            return TransformerBridge.boot_tl_legacy(name, device=device, dtype=dtype)
        return TransformerBridge.boot_transformers(
            name, device=device, dtype=dtype, revision=revision, model_class=_Whole()
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise unknown(asked, error) from error


def resolve(name: str) -> str:
    """What the libraries know a model by: the folder of the embedded one, a folder, or an official hub name."""
    if name == "embedded":
        from saelens_n2g.embedded import model_folder

        return str(model_folder())
    if Path(name).exists():
        if not (Path(name) / "config.json").is_file():
            raise InputError(f"model folder {name}", "a Hugging Face folder with config.json", "none there")
        return name
    from transformer_lens.supported_models import MODEL_ALIASES

    return next((official for official, aliases in MODEL_ALIASES.items() if name in aliases), name)


def depth_of(name: str, revision: str | None = None) -> int:
    """How many layers a model has, read off its configuration alone. Raises `InputError` if there is no such model, or
    where only the weights would tell, as for TransformerLens' own checkpoints."""
    from transformers import AutoConfig

    try:
        with quiet():
            found = getattr(AutoConfig.from_pretrained(resolve(name), revision=revision), "num_hidden_layers", None)
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise unknown(name, error) from error
    if not isinstance(found, int):
        raise InputError(f"model {name!r}", "a configuration that says how many layers there are", "none")
    return found


def unknown(name: str, error: Exception) -> InputError:
    """The error that there is no such model, with the libraries' reason in one line."""
    reason = " ".join(str(error).split())[:200]
    expected = "`embedded`, a folder in Hugging Face format, or a name that the hub and TransformerLens know"
    return InputError(f"model {name!r}", expected, reason)


class _Whole:
    """The class that TransformerLens would load the model with, but weights that are not there are an error.

    Transformers fills them with random numbers, and TransformerLens mutes the warning.
    """

    @staticmethod
    def from_pretrained(name: str, **options: Any) -> Any:
        from transformer_lens.model_bridge.sources.transformers import (
            determine_architecture_from_hf_config,
            get_hf_model_class_for_architecture,
        )

        model_class: Any = get_hf_model_class_for_architecture(determine_architecture_from_hf_config(options["config"]))
        model, info = model_class.from_pretrained(name, output_loading_info=True, **options)
        if missing := sorted(info["missing_keys"]):
            found = f"{len(missing)} without weights, such as {missing[0]}"
            raise InputError(f"model {name!r}", "a weight for every parameter", found)
        return model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Booting prints bars and advice on stdout, stderr and the log; a tool's own output must stay readable."""
    import transformers

    bars, shown = transformers.utils.logging, transformers.utils.logging.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()), errors_only("", "huggingface_hub"):
            yield
    finally:
        if shown:
            bars.enable_progress_bar()
