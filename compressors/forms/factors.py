"""Factored matrices that lose components in training: ranks, and terms of Kronecker sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from compressors.closed_forms import Target, root_of
from compressors.factors import Factors
from compressors.forms.base import Form, Mix
from compressors.methods import initialise
from compressors.modeling_paredown import AsLinear, KroneckerLinear, LowRankLinear
from spaces.plan import Choice
from spaces.signature import Module

STEP = 16
"""Ranks on the way down are multiples of this: rank 30 runs slower than rank 32, and fewer cuts cost less."""


class FactoredForm(Form):
    """W = sum_i l_i r_i with fewer and fewer components, each cut the best one in the weighed error.

    ``names`` are the two parameters and ``dims`` the dimension of each that counts components; ``first`` is how many
    there are at way 0, ``last`` how many are stored.
    """

    names: tuple[str, str]
    dims: tuple[int, int]

    def __init__(self, stored: AsLinear, layer: AsLinear, choice: Choice, target: Target, last: int) -> None:
        super().__init__(stored, layer, choice, target)
        self.first, self.last = self.count, last

    @property
    def count(self) -> int:
        """How many components there are now."""
        return int(self.layer.get_parameter(self.names[0]).shape[self.dims[0]])

    def grams(self) -> tuple[Tensor, Tensor]:
        """Return the weighed inner products of the left components and of the right ones, (k, k) each."""
        raise NotImplementedError

    @torch.no_grad()
    def cut(self, way: float, *, regrow: bool) -> Sequence[Mix]:
        """Drop to the components that ``way`` allows."""
        count = self._count_at(way)
        if count == self.count:
            return ()
        left, right = self._mixed(count)
        (a, b), (i, j) = self.names, self.dims
        before = self.at_mean()
        mixes = (Mix(a, i, left, right), Mix(b, j, right, left))
        for mix in mixes:
            parameter = self.layer.get_parameter(mix.name)
            parameter.data = mixed(parameter.data, mix.values, mix.dim)
        self.keep_mean(before)
        return mixes

    @torch.no_grad()
    def parts(self) -> dict[str, Tensor]:
        """Return both factors, cut to the stored number of components."""
        found = {name: self.layer.get_parameter(name).detach() for name in self.names}
        if self.count == self.last:
            return found
        mixes = zip(self.names, self.dims, self._mixed(self.last), strict=True)
        return {name: mixed(found[name], values, dim) for name, dim, values in mixes}

    def hold(self) -> None:
        """Nothing comes back by itself: what was cut is not there any more."""

    def restore(self, way: float, tensors: Mapping[str, Tensor], *, regrow: bool) -> None:
        """Shorten the factors to the shapes at ``way``; their values are restored by the loop."""
        count = self._count_at(way)
        for name, dim in zip(self.names, self.dims, strict=True):
            parameter = self.layer.get_parameter(name)
            parameter.data = parameter.data.narrow(dim, 0, count).contiguous()

    def _count_at(self, way: float) -> int:
        """Return the components at ``way``: from 32 up in steps of 16, which run faster than other ranks."""
        count = max(self.last, round(self.first * (self.last / self.first) ** way))
        if way < 1 and count >= 2 * STEP:
            count = min(self.first, -(-count // STEP) * STEP)
        return int(count)

    def _mixed(self, count: int) -> tuple[Tensor, Tensor]:
        left, right = truncation(*self.grams(), count)
        norms = []
        for name, dim, values in zip(self.names, self.dims, (left, right), strict=True):
            new = mixed(self.layer.get_parameter(name).detach(), values, dim).movedim(dim, 0)
            norms.append(new.flatten(1).norm(dim=1).clamp_min(torch.finfo(new.dtype).tiny))
        ratio = (norms[1] / norms[0]).sqrt()[:, None]
        return left * ratio, right / ratio


class LowRankForm(FactoredForm):
    """``lowrank``: starts at the rank at which the factors store as much as the matrix."""

    layer: LowRankLinear
    names, dims = ("up", "down"), (1, 0)

    @classmethod
    def open(cls, module: Module, stored: AsLinear, choice: Choice, factors: Factors, init: str) -> LowRankForm:
        """Start from the closed form of the larger rank."""
        m, n = module.shape
        rank = max(choice["rank"], m * n // (m + n))
        parts = initialise(module, Choice.of("lowrank", rank=rank), factors, init)
        layer = LowRankLinear(module.shape, rank=rank, bias="bias" in parts)
        layer.load_state_dict(parts)
        return cls(stored, layer, choice, factors.target(module.path, init), choice["rank"])

    def grams(self) -> tuple[Tensor, Tensor]:
        """up^T D^2 up and down C down^T."""
        up, down, rows, moment = self.layer.up.detach(), self.layer.down.detach(), self.target.rows, self.target.moment
        left = (up if rows is None else up * rows[:, None]).T @ up
        moved = down if moment is None else down * moment if moment.dim() == 1 else down @ moment
        return left, moved @ down.T


class KroneckerForm(FactoredForm):
    """``kronecker``: starts with as many terms as the matrix could store, or as the sum has."""

    layer: KroneckerLinear
    names, dims = ("a", "b"), (0, 0)

    @classmethod
    def open(cls, module: Module, stored: AsLinear, choice: Choice, factors: Factors, init: str) -> KroneckerForm:
        """Start from the closed form of more terms."""
        (m, n), (m1, n1) = module.shape, (choice["m1"], choice["n1"])
        (a, b), most = (m1 * n1, m // m1 * (n // n1)), choice["terms"]
        most = max(most, min(m * n // (a + b), a, b))
        opened = replace(choice, numbers=tuple({**dict(choice.numbers), "terms": most}.items()))
        parts = initialise(module, opened, factors, init)
        layer = KroneckerLinear(module.shape, m1=m1, n1=n1, terms=most, bias="bias" in parts)
        layer.load_state_dict(parts)
        return cls(stored, layer, choice, factors.target(module.path, init), choice["terms"])

    def grams(self) -> tuple[Tensor, Tensor]:
        """<A_i, A_j> and <B_i, B_j> under the Kronecker-factored weights d1, C1 and d2, C2 (partial traces of C)."""
        a, b = self.layer.a.detach(), self.layer.b.detach()
        (_, m1, n1), (_, m2, n2) = a.shape, b.shape
        rows, moment = self.target.rows, self.target.moment
        if rows is not None:
            table = rows.view(m1, m2)
            a, b = a * table.mean(1).sqrt()[:, None], b * table.mean(0).sqrt()[:, None]
        if moment is None:
            return _gram(a, a), _gram(b, b)
        if moment.dim() == 1:
            table = moment.view(n1, n2)
            return _gram(a * table.mean(1), a), _gram(b * table.mean(0), b)
        grid = moment.view(n1, n2, n1, n2)
        first, second = torch.einsum("abcb->ac", grid), torch.einsum("abad->bd", grid)
        return _gram(a @ first, a), _gram(b @ second, b)


def truncation(left: Tensor, right: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return X and Y (count, k): L X^T and R Y^T are the best ``count`` components of L R^T.

    ``left`` = L^T L and ``right`` = R^T R (k, k) in the inner products that weigh the error. With L^T L = A A^T and
    R^T R = B B^T, the singular values of L R^T are those of A^T B = P S Q^T, and X = S^(1/2) P^T A^(-1),
    Y = S^(1/2) Q^T B^(-1) = S^(-1/2) P^T A^T: P and S^2 are the eigenvectors and values of A^T R^T R A.
    """
    device, dtype = left.device, left.dtype
    left, right = left.double().cpu(), right.double().cpu()
    a = root_of(left, len(left), left)
    squares, vectors = torch.linalg.eigh(a.T @ right @ a)
    p = vectors.flip(1)[:, :count].T
    root = squares.flip(0)[:count].clamp_min(torch.finfo(dtype).tiny).pow(0.25)[:, None]
    solved: Tensor = torch.linalg.solve_triangular(a, p, upper=False, left=False)
    return (root * solved).to(device, dtype), (p @ a.T / root).to(device, dtype)


def mixed(tensor: Tensor, values: Tensor, dim: int) -> Tensor:
    """Return ``values`` (k', k) times ``tensor`` along ``dim``."""
    moved = tensor.movedim(dim, 0)
    made = (values.to(tensor.dtype) @ moved.flatten(1)).view(-1, *moved.shape[1:])
    return made.movedim(0, dim).contiguous()


def _gram(x: Tensor, y: Tensor) -> Tensor:
    return x.flatten(1) @ y.flatten(1).T
