"""The exchange between the branches of an HRNet."""

import pytest
import torch
import torch.nn.functional as F

from segtrain.models.backbones.hrnet_layers import ExchangeModule


@pytest.mark.parametrize("target", range(4))
@pytest.mark.parametrize("align_corners", [False, True])
def test_an_exchange_is_the_sum_of_what_the_branches_send(target: int, align_corners: bool) -> None:
    torch.manual_seed(0)
    module = ExchangeModule((2, 4, 6, 8), blocks=1, align_corners=align_corners).double().eval()
    branches = [
        torch.randn(2, 2 + 2 * i, -(-19 // 2**i), -(-30 // 2**i)).double() for i in range(4)
    ]
    kept = [branch.clone() for branch in branches]
    outputs = module(*branches)
    assert all(torch.equal(*pair) for pair in zip(branches, kept, strict=True))

    sent = [blocks(branch) for blocks, branch in zip(module.branches, branches, strict=True)]
    total = torch.zeros_like(branches[target])
    for source, features in enumerate(sent):
        term = module.fuse_layers[target][source](features)
        if source > target:
            size = branches[target].shape[-2:]
            term = F.interpolate(term, size=size, mode="bilinear", align_corners=align_corners)
        total = total + term
    torch.testing.assert_close(outputs[target], total.relu())


def test_nearest_fusion_repeats_the_values_of_a_coarser_branch() -> None:
    torch.manual_seed(0)
    module = ExchangeModule((2, 4), blocks=1, align_corners=True, fusion="nearest").eval()
    branches = [torch.randn(1, 2, 6, 8), torch.randn(1, 4, 3, 4)]
    fine, coarse = (
        blocks(branch) for blocks, branch in zip(module.branches, branches, strict=True)
    )
    layers = module.fuse_layers[0]
    assert isinstance(layers, torch.nn.ModuleList)
    repeated = layers[1](coarse).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(module(*branches)[0], (fine + repeated).relu())


def test_the_gradient_of_an_exchange_is_the_numerical_one() -> None:
    torch.manual_seed(0)
    module = ExchangeModule((1, 2), blocks=1, align_corners=False).double().eval()
    branches = (torch.randn(1, 1, 5, 4).double(), torch.randn(1, 2, 3, 2).double())
    for branch in branches:
        branch.requires_grad_()
    assert torch.autograd.gradcheck(lambda *inputs: tuple(module(*inputs)), branches)
