"""Loading the model that the local engine serves."""

from __future__ import annotations

from typing import Any

import torch

from searchr1.errors import UserError, nearest

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


ALIGNMENT = 64


def align(model: Any) -> None:
    """Move parameters that start off a 64-byte boundary to one, in place.

    A model that was loaded from safetensors lies where the file put it, and the matrix library adds up in another order
    there: the same weights would give other last bits after a resume. Ties, optimizers and views of the modules stay.
    """
    for parameter in model.parameters():
        if parameter.data_ptr() % ALIGNMENT:
            parameter.data = parameter.data.clone()


def load_model(model: Any, dtype: str | None = None, device: str | None = None) -> Any:
    """A causal language model in evaluation mode, from a folder or a name on the Hugging Face hub; a module is moved.

    ``dtype`` defaults to float32 on a CPU and to what the checkpoint holds elsewhere; ``device`` to the first GPU, or
    the CPU without one. Raises ``UserError`` when there is no such model.
    """
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}{nearest(dtype, DTYPES)}")
    if not isinstance(model, str):
        return model.to(device=device or model.device, dtype=DTYPES[dtype] if dtype else model.dtype)
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    chosen = DTYPES[dtype] if dtype else torch.float32 if device == "cpu" else "auto"
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=chosen)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"no causal language model in {model!r}: expected a model folder or name; {reason}") from error
    return loaded.to(device).eval()
