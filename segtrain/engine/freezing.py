"""Parameters that are not trained, for the whole run or until a step."""

from __future__ import annotations

from collections.abc import Sequence

from segtrain.errors import ConfigError
from segtrain.models import Segmentor
from segtrain.models.weights.names import ModelNames


class Frozen:
    """Some frozen modules of a model.

    Their parameters have no gradients, so that their activations are not stored, and their batch
    norms use and keep their running statistics.

    Args:
        model: The model.
        modules: ``backbone``, ``head``, names of submodules, or patterns of names.

    Raises:
        ConfigError: When a module does not exist, or nothing of the model or of its adapter is left
            to train.

    Example:
        >>> from segtrain import build_model
        >>> model = build_model("hrnet_w18_small_v1", num_classes=2)
        >>> frozen = Frozen(model, ["backbone"])
        >>> sorted({name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad})
        ['last_layer']
        >>> frozen.thaw()
        >>> all(parameter.requires_grad for parameter in model.parameters())
        True
    """

    def __init__(self, model: Segmentor, modules: Sequence[str]) -> None:
        names = ModelNames(model).in_modules(modules, f"trainer.freeze=[{','.join(modules)}]")
        trained = {name for name, value in model.named_parameters() if value.requires_grad}
        if trained <= names:
            raise ConfigError(
                f"trainer.freeze=[{','.join(modules)}] leaves no parameter to train; freeze less,"
                " such as [backbone]"
            )
        if model.has_adapter and all(model.is_head(name) for name in trained - names):
            raise ConfigError(
                f"trainer.freeze=[{','.join(modules)}] freezes all layers of model.adapter; leave"
                " the backbone out, because its own weights are frozen anyway"
            )
        self.model = model
        self.names = sorted(trained & names)
        for name in self.names:
            model.get_parameter(name).requires_grad_(False)
        self._held_before = model.held_norms  # those of a backbone with adapters
        model.held_norms = (*model.held_norms, *model.norms_in(names))
        model.train(model.training)

    def thaw(self) -> None:
        """Train these parameters and batch norms from now on."""
        for name in self.names:
            self.model.get_parameter(name).requires_grad_(True)
        self.model.held_norms = self._held_before
        self.model.train(self.model.training)
