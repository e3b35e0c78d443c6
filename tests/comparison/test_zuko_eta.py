"""eta beside zuko: the demonstration model's densities summed over its cells of [Fe/H] by zuko's GMM."""

import numpy as np
import pytest

pytest.importorskip("zuko", reason="zuko is not installed")

import torch
import zuko
from eta_toy import stars

from xptools.artefact import load
from xptools.commands.eta import DEFAULT
from xptools.cores import eta, mixture
from xptools.cores.mixture_zuko import to_zuko


def test_eta_is_zukos():
    arrays = load(DEFAULT, "eta").arrays
    model = zuko.mixtures.GMM(4, 1, components=mixture.size(arrays), hidden_features=(32, 32))
    model.load_state_dict({k: torch.from_numpy(v) for k, v in to_zuko(arrays).items()})
    model = model.double()
    where = stars(300)
    x = torch.from_numpy(mixture.standardise(arrays, *where))
    sums = []
    with torch.no_grad():
        for side in (arrays["mdf.feh"] < -1, arrays["mdf.feh"] > -1):
            count, c = arrays["mdf.count"][side], mixture.context(arrays, arrays["mdf.feh"][side])
            terms = [model(torch.tensor([v])).log_prob(x).exp().numpy() for v in c]
            sums.append(np.einsum("j,jn->n", count / count.sum(), terms))
    want = np.log10(sums[0] / sums[1])
    np.testing.assert_allclose(eta.score(eta.Scorer(arrays), *where)["eta"], want, atol=1e-5)
