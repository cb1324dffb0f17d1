"""The forms in which a student's matrices are trained while they shrink, all of one student together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from compressors.factors import Factors
from compressors.forms.base import Form, Masked, Mix
from compressors.forms.factors import KroneckerForm, LowRankForm
from compressors.forms.masks import LowRankSparseForm, PrunedLowRankForm, SparseForm
from compressors.modeling_paredown import AsLinear
from compressors.structure import remains
from spaces.cost import PREFIX
from spaces.plan import Choice, Student
from spaces.signature import Module
from spaces.structure import cut

__all__ = ["Form", "Forms", "Masked", "Mix", "open_forms"]

Open = Callable[[Module, AsLinear, Choice, Factors, str], Form]
"""(module, stored layer, choice, factors, init) -> the matrix in training, whole."""

FORMS: dict[str, Open] = {
    "sparse": SparseForm.open,
    "block": SparseForm.open,
    "lowrank+sparse": LowRankSparseForm.open,
    "pruned-lowrank": PrunedLowRankForm.open,
    "lowrank": LowRankForm.open,
    "kronecker": KroneckerForm.open,
}
"""Methods whose matrices can shrink in training; others train as they are stored."""


def open_forms(model: nn.Module, student: Student, factors: Factors) -> Forms:
    """Return the forms of all matrices of ``model``, the student of ``factors``' teacher; ``model`` stays as it is.

    Tables of words are left out: LadaBERT cuts them in one go, and whole they are half of a small model's weights.
    """
    left = cut(factors.signature, student.structure)
    factors = factors.cut(remains(factors, student.structure).kept)
    forms = {}
    for module in left.modules:
        choice = student[module.path]
        if choice.method in FORMS and module.kind != "embedding":
            path = PREFIX + module.path
            layer = model.get_submodule(path)
            assert isinstance(layer, AsLinear)
            forms[path] = FORMS[choice.method](module, layer, choice, factors, student.init)
    return Forms(model, forms)


class Forms:
    """The matrices of one student that train in another form, by their paths in the model."""

    def __init__(self, model: nn.Module, forms: Mapping[str, Form]) -> None:
        self.model, self.by_path = model, dict(forms)

    def enter(self) -> None:
        """Put the training layers in the places of the stored ones."""
        for path, form in self.by_path.items():
            _place(self.model, path, form.layer)

    def leave(self) -> None:
        """Put the stored layers back, as the trained ones are when cut to their stored size."""
        for path, form in self.by_path.items():
            form.finish()
            _place(self.model, path, form.stored)

    def abandon(self) -> None:
        """Put the stored layers back as they were: the training has failed."""
        for path, form in self.by_path.items():
            _place(self.model, path, form.stored)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Let the student train in these forms, and be in its stored form again afterwards."""
        self.enter()
        try:
            yield
        except BaseException:
            self.abandon()
            raise
        self.leave()

    @contextmanager
    def stored(self) -> Iterator[None]:
        """Let the student be what it would be if it were stored now, and train on afterwards."""
        self.leave()
        try:
            yield
        finally:
            self.enter()

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters of the training layers by their names in the model."""
        return {f"{path}.{n}": p for path, form in self.by_path.items() for n, p in form.layer.named_parameters()}

    def cut(self, factors: float, masks: float, *, regrow: bool) -> list[Mix]:
        """Shrink factors and masks so far; return what that does to parameters, with their names in the model."""
        return [
            Mix(f"{path}.{mix.name}", mix.dim, mix.values, mix.gradients)
            for path, form in self.by_path.items()
            for mix in form.cut(masks if form.masked() else factors, regrow=regrow)
        ]

    def hold(self) -> None:
        """Make small again what a step has moved."""
        for form in self.by_path.values():
            form.hold()

    def observe(self) -> None:
        """Add up how the present gradients move the weights under masks."""
        for form in self.by_path.values():
            form.observe()

    def gradient_masks(self) -> Sequence[tuple[Tensor, Tensor]]:
        """Return (parameter, mask) of all gradients that stay zero."""
        return [pair for form in self.by_path.values() for pair in form.gradient_masks()]

    def masked(self) -> Sequence[Masked]:
        """Return all parameters under masks."""
        return [masked for form in self.by_path.values() for masked in form.masked()]

    def state(self) -> dict[str, Tensor]:
        """Return tensors for ``restore``."""
        return {f"{path}/{n}": t for path, form in self.by_path.items() for n, t in form.state().items()}

    def restore(self, factors: float, masks: float, tensors: Mapping[str, Tensor], *, regrow: bool) -> None:
        """Give parameters the shapes that they have when shrunk so far, and masks what ``state`` returned."""
        for path, form in self.by_path.items():
            own = {n.removeprefix(f"{path}/"): t for n, t in tensors.items() if n.startswith(f"{path}/")}
            form.restore(masks if form.masked() else factors, own, regrow=regrow)


def _place(model: nn.Module, path: str, layer: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, layer)
