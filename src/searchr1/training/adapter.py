"""LoRA (arXiv 2106.09685) by PEFT: the weights stay as they are, small matrices beside them are trained.

The reference that KL is measured against needs no copy: it is the model with its adapter switched off.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from searchr1.errors import UserError
from searchr1.training.optimization import Lora

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NAME = "default"


def add_adapter(model: PreTrainedModel, options: Lora) -> None:
    """Put a new adapter, which changes nothing yet, beside the linear layers of ``model``; only it is trainable.

    Raises ``UserError`` when PEFT is missing or no layer matches ``options.layers``.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError("lora.rank: training an adapter needs PEFT: pip install 'searchr1[lora]'") from error
    untyped: Any = model
    if options.base_precision == "bfloat16":
        for parameter in model.parameters():  # and no buffers: rotary frequencies must stay float32
            parameter.data = parameter.data.bfloat16()
    layers = list(options.layers) or _linear_layers(untyped)
    config = LoraConfig(r=options.rank, lora_alpha=options.alpha, lora_dropout=0.0, target_modules=layers)
    try:
        inject_adapter_in_model(config, untyped, adapter_name=_NAME)
    except ValueError as error:
        raise UserError(f"lora.layers: {str(error).splitlines()[0]}") from error
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def adapter_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """The adapter's own tensors by name."""
    return {name: value for name, value in model.state_dict().items() if ".lora_" in name}


def merged_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """Weights of the plain model that computes the same: W + (alpha / rank) B A, under the plain names, float32."""
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}
    state = {}
    for name, value in model.state_dict().items():
        if ".lora_" in name:
            continue
        owner, found, rest = name.partition(".base_layer.")
        value = value.detach().float()
        if found and rest == "weight":
            value = value + layers[owner].get_delta_weight(_NAME).detach().float()
        state[f"{owner}.{rest}" if found else name] = value
    return state


@contextmanager
def adapter_off(model: PreTrainedModel) -> Iterator[None]:
    """The model as it was before it had an adapter."""
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "get_delta_weight")]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _linear_layers(model: Any) -> list[str]:
    """Names of the decoder's linear layers, without those of the output head."""
    found = {
        name.split(".")[-1] for name, module in model.get_decoder().named_modules() if isinstance(module, nn.Linear)
    }
    return sorted(found)
