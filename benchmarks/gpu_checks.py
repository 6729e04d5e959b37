"""Checks of segtrain on one device, as plain functions that do not need pytest.

``benchmarks/gpu.py`` runs all checks, and ``tests/gpu/test_checks.py`` runs them under pytest. A
check raises ``AssertionError`` if it fails and :class:`Skipped` if it cannot run.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import segtrain
from segtrain.assembly.check import check_config
from segtrain.assembly.training import build_trainer
from segtrain.criterion import Criterion
from segtrain.engine import Trainer
from segtrain.engine.checkpoint import load_checkpoint
from segtrain.engine.distributed import Processes
from segtrain.losses import LOSSES, MININGS, PixelLoss

Check = Callable[[torch.device], None]
NUM_CLASSES, IGNORE_LABEL = 4, 255
COMPILED_STEPS = 20
MODEL = Path(__file__).with_name("gpu_model.py")  # a plugin
_TERMS = {"terms": {"cross_entropy": {}, "dice": {"weight": 0.5}}}
_REQUIRED: dict[str, dict[str, Any]] = {"sum": _TERMS, "uncertainty": _TERMS}
_MINING_OPTIONS = {"ohem": {"min_kept": 30}}  # the default would keep all of the few pixels


class Skipped(Exception):
    """A check cannot run: it needs another device, or a package that is not installed."""


# ---------------------------------------------------------------------- losses


def loss_cases(name: str) -> Iterator[dict[str, Any]]:
    """Yield the loss `name`, and if it is a pixel loss each hard-example mining with it."""
    spec = {"name": name, **_REQUIRED.get(name, {})}
    if "class_weights" in LOSSES.schema(name):
        spec["class_weights"] = [1.0, 2.0, 0.5, 3.0]
    yield spec
    if isinstance(_build_loss(spec), PixelLoss):
        for mining in MININGS.names():
            if mining != "none":
                yield {**spec, "mining": {"name": mining, **_MINING_OPTIONS.get(mining, {})}}


def check_loss(name: str, device: torch.device) -> None:
    """Check the contract of the loss `name` with every mining.

    Values and gradients match the CPU in float64, ignored pixels have no gradient, autocast changes
    nothing, half precision is computed in float32, and strips match the whole image.
    """
    failures = []
    for spec in loss_cases(name):
        try:
            _check_contract(spec, device)
            _check_strips(spec, device)
        except ModuleNotFoundError as error:
            raise Skipped(f"{name} needs {error.name}, which is not installed") from error
        except AssertionError as error:
            mining = spec.get("mining", {"name": "none"})["name"]
            failures.append(f"mining {mining}: {' '.join(str(error).split())[:200]}")
    assert not failures, "; ".join(failures)


def _build_loss(spec: Mapping[str, Any]) -> segtrain.Loss:
    return LOSSES.build(spec, num_classes=NUM_CLASSES, ignore_label=IGNORE_LABEL)


def _batch(low: tuple[int, int], high: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Draw logits and a target with ignored pixels, on the CPU."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, NUM_CLASSES, *low, generator=generator) * 2
    target = torch.randint(0, NUM_CLASSES, (3, *high), generator=generator)
    target[0, :2] = IGNORE_LABEL
    target[1, 3, 1:4] = IGNORE_LABEL
    return logits, target


def _check_contract(spec: Mapping[str, Any], device: torch.device) -> None:
    logits, target = _batch((12, 10), (12, 10))
    exact = logits.double().requires_grad_()
    expected = _build_loss(spec)(exact, target)
    expected.backward()
    assert exact.grad is not None
    loss, target = _build_loss(spec).to(device), target.to(device)
    leaf = logits.to(device).requires_grad_()
    value = loss(leaf, target)
    value.backward()
    assert value.shape == (), f"the value has the shape {tuple(value.shape)}"
    assert value.dtype == torch.float32, f"the value is {value.dtype}"
    assert value.device.type == leaf.device.type == device.type, f"the value is on {value.device}"
    assert leaf.grad is not None
    _close(value, expected, "value")
    _close(leaf.grad, exact.grad, "gradient")
    ignored = (target == IGNORE_LABEL)[:, None].expand_as(leaf)
    assert not leaf.grad[ignored].any(), "an ignored pixel has a gradient"
    nothing = loss(leaf, torch.full_like(target, IGNORE_LABEL))
    assert nothing.item() == 0, f"the loss of ignored pixels is {nothing.item()}"
    _check_half_precision(_build_loss(spec).to(device), logits.to(device), target)


def _check_half_precision(loss: segtrain.Loss, logits: Tensor, target: Tensor) -> None:
    loss.eval()  # in training, running averages would differ between two calls
    plain = loss(logits, target)
    with torch.autocast(logits.device.type, dtype=torch.bfloat16):
        _close(loss(logits, target), plain, "value under autocast", rtol=1e-6)
    for dtype in (torch.bfloat16, torch.float16):
        half = logits.to(dtype)
        value = loss(half, target)
        assert value.dtype == torch.float32, f"{dtype} logits gave {value.dtype}"
        _close(value, loss(half.float(), target), f"value of {dtype} logits", rtol=1e-6)


def _check_strips(spec: Mapping[str, Any], device: torch.device) -> None:
    """Compare strips with the whole image: in float32, and for bfloat16 logits under autocast."""
    for dtype in (torch.float32, torch.bfloat16):
        results = [_through_criterion(spec, device, rows, dtype) for rows in (None, 7)]
        if None in results:  # the loss has no strips
            return
        (plain, plain_gradient), (strips, gradient) = results  # type: ignore[misc]
        _close(strips, plain, f"value in strips, {dtype}")
        # A bfloat16 gradient has 8 bits.
        tolerance = 1e-4 if dtype == torch.float32 else 1e-2
        _close(gradient, plain_gradient, f"gradient in strips, {dtype}", rtol=tolerance)


def _through_criterion(
    spec: Mapping[str, Any], device: torch.device, rows: int | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor] | None:
    try:
        criterion = segtrain.build_criterion(
            spec, num_classes=NUM_CLASSES, ignore_label=IGNORE_LABEL, strip_rows=rows
        ).to(device)
    except segtrain.ConfigError:
        return None
    logits, target = _batch((6, 5), (24, 20))
    leaf = logits.to(device, dtype).requires_grad_()
    with _autocast(device, enabled=dtype == torch.bfloat16):
        total = criterion({"out": leaf}, target.to(device)).total
    total.backward()
    assert leaf.grad is not None
    return total.detach(), leaf.grad


def _autocast(device: torch.device, *, enabled: bool) -> Any:
    return torch.autocast(device.type, dtype=torch.bfloat16) if enabled else nullcontext()


def _close(found: Tensor, expected: Tensor, what: str, rtol: float = 1e-4) -> None:
    """Assert that the distance is at most `rtol` times the largest expected value."""
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    allowed = rtol * float(expected.abs().max()) + 1e-7
    distance = float((found - expected).abs().max())
    assert distance <= allowed, f"{what} is off by {distance:.2e}, allowed are {allowed:.2e}"


# ---------------------------------------------------------------------- training


def small_config(device: torch.device, run_dir: str | Path, **trainer: Any) -> dict[str, Any]:
    """Return the configuration of a short run on drawn shapes, as plain values."""
    return {
        "dataset": {"name": "shapes", "size": [48, 64], "num_train": 32, "num_val": 4},
        "model": {"name": "gpu_check"},
        "loss": {"name": "cross_entropy"},
        "optimizer": {"name": "adamw", "lr": 0.003},
        "scheduler": {"name": "one_cycle"},
        "criterion": {"strip_rows": 16},
        "augmentation": {"scale": [1.0, 1.0]},
        "loader": {"num_workers": 0},
        "evaluation": {"batch_size": 4},
        "run_dir": str(run_dir),
        "trainer": {
            "max_steps": 6,
            "batch_size": 4,
            "log_every": 1,
            "log_images": 0,
            "evaluate_every": 6,
            "device": device.type,
            **trainer,
        },
    }


@contextmanager
def small_trainer(device: torch.device, **trainer: Any) -> Iterator[Trainer]:
    """Enter a trainer of :func:`small_config`, with a temporary run directory."""
    with (
        tempfile.TemporaryDirectory() as folder,
        opened(small_config(device, folder, **trainer)) as it,
    ):
        yield it


@contextmanager
def opened(config: Mapping[str, Any]) -> Iterator[Trainer]:
    """Enter the trainer of a configuration, and close its run directory at the end."""
    device = torch.device(config["trainer"]["device"])
    segtrain.load_plugins([str(MODEL)])
    trainer = build_trainer(check_config(config), Processes(0, 1, device))
    try:
        trainer.model.train()
        yield trainer
    finally:
        if trainer.run is not None:
            trainer.run.close()


def _steps(trainer: Trainer, count: int) -> list[float]:
    """Take steps; return their losses."""
    stream = trainer.batches(trainer.step)
    losses = []
    for _ in range(count):
        losses.append(float(trainer.train_step([next(stream)])["loss"]))
        trainer.step += 1
    return losses


def _weights(trainer: Trainer) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


def _moved(trainer: Trainer, before: list[Tensor]) -> list[bool]:
    pairs = zip(before, trainer.model.parameters(), strict=True)
    return [not torch.equal(*pair) for pair in pairs]


def check_fit(device: torch.device) -> None:
    """Check a whole run: bf16, channels_last, accumulation, clipping, EMA, GHM and evaluation."""
    options = {"precision": "bf16", "channels_last": True, "accumulate": 2, "ema_decay": 0.9}
    with tempfile.TemporaryDirectory() as folder:
        config = small_config(device, folder, clip_grad_norm=1.0, **options)
        config["loss"] = {"name": "focal"}
        config["mining"] = {"name": "ghm", "momentum": 0.5}
        config["criterion"] = {"output_weights": "learned", "strip_rows": 16}
        with opened(config) as trainer:
            before = _weights(trainer)
            result = trainer.fit()
            assert result is not None
            assert math.isfinite(result["mIoU"]), "the mIoU is not finite"
            assert all(_moved(trainer, before)), "a parameter did not change"
            state = trainer.optimizer.state.values()
            tensors = [value for entry in state for value in entry.values()]
            assert {value.device.type for value in tensors} == {device.type}
        predictor = segtrain.Predictor.from_checkpoint(folder, device=device.type)
        image = torch.zeros(40, 52, 3, dtype=torch.uint8).numpy()
        assert predictor(image).shape == (40, 52)


def check_deferred_finite_check(device: torch.device) -> None:
    """Check that a NaN never changes a weight; a GPU reports it one step later, a CPU at once."""
    with small_trainer(device) as trainer:
        _steps(trainer, 2)
        before = _weights(trainer)
        batch = next(trainer.batches(2))
        bad = {**batch, "images": batch["images"] * math.nan}
        raised = _numeric_error(lambda: trainer.train_step([bad]))  # type: ignore[list-item]
        assert bool(raised) == (device.type == "cpu"), (
            f"the step with NaN raised {raised or 'nothing'}"
        )
        assert not any(_moved(trainer, before)), "the step with NaN changed a weight"
        if not raised:
            trainer.step += 1
            raised = _numeric_error(lambda: trainer.train_step([batch]))
            assert not any(_moved(trainer, before)), "the step after it changed a weight"
        assert "at step 3" in raised, f"expected an error at step 3, got {raised or 'none'}"


def _numeric_error(call: Callable[[], object]) -> str:
    try:
        call()
    except segtrain.NumericError as error:
        return str(error)
    return ""


def check_fp16_scaler(device: torch.device) -> None:
    """Check that an overflow in fp16 skips one step and halves the scale."""
    with small_trainer(device, precision="fp16") as trainer:
        losses = _steps(trainer, 2)
        assert all(map(math.isfinite, losses)), f"losses {losses}"
        state = trainer.scaler.state_dict()
        trainer.scaler.load_state_dict({**state, "scale": 2.0**100})
        before, rate = _weights(trainer), trainer.scheduler.get_last_lr()
        _steps(trainer, 1)
        assert not any(_moved(trainer, before)), "an overflow changed a weight"
        assert trainer.scheduler.get_last_lr() == rate, "the schedule did not wait"
        assert trainer.scaler.get_scale() == 2.0**99, f"the scale is {trainer.scaler.get_scale()}"
        trainer.scaler.load_state_dict(state)
        losses = _steps(trainer, 2)
        assert all(map(math.isfinite, losses)), f"losses {losses}"
        assert any(_moved(trainer, before)), "no weight changes after an overflow"


def check_resume(device: torch.device) -> None:
    """Check that a resumed run has the state of the checkpoint, and the same next losses."""
    options = {"ema_decay": 0.9, "precision": "bf16"}
    with tempfile.TemporaryDirectory() as folder:
        whole, part = (Path(folder) / name for name in ("whole", "part"))
        with opened(small_config(device, whole, **options)) as trainer:
            uninterrupted = _steps(trainer, 6)
        with opened(small_config(device, part, stop_after=3, **options)) as trainer:
            trainer.fit()
        with opened({**small_config(device, part, **options), "resume": "auto"}) as trainer:
            assert trainer.step == 3, f"resumed at step {trainer.step}"
            saved = load_checkpoint(part / "checkpoints" / "last.pt")
            different = list(_differences(trainer.state(), saved))
            assert not different, f"not as in the checkpoint: {', '.join(different[:3])}"
            resumed = _steps(trainer, 3)
    # The order of additions on a GPU is not deterministic.
    tolerance = 0.0 if device.type == "cpu" else 1e-2
    pairs = list(zip(resumed, uninterrupted[3:], strict=True))
    close = all(math.isclose(*pair, rel_tol=tolerance) for pair in pairs)
    assert close, f"losses {resumed} after resuming, {uninterrupted[3:]} without a stop"


def _differences(one: Any, other: Any, where: str = "") -> Iterator[str]:
    """Yield the keys in which two states differ, except the clock and the configuration."""
    if isinstance(one, Mapping):
        for key in one.keys() - {"seconds", "config"}:
            yield from _differences(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, (list, tuple)):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from _differences(*pair, f"{where}/{index}")
    elif isinstance(one, Tensor):
        if not torch.equal(one.cpu(), other.cpu()):
            yield where
    elif one != other:
        yield where


def check_sync_batchnorm(device: torch.device) -> None:
    """Check ``sync_batchnorm=true`` in one process, without and with a process group."""
    with small_trainer(device, sync_batchnorm=True) as trainer:
        assert all(map(math.isfinite, _steps(trainer, 2)))
    dist = torch.distributed
    if not dist.is_available() or dist.is_initialized():
        raise Skipped("torch.distributed is not available, or is already in use")
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
        if not dist.is_nccl_available():
            raise Skipped("this torch has no NCCL")
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        _check_wrapped(device)
    finally:
        dist.destroy_process_group()


def _check_wrapped(device: torch.device) -> None:
    """Check the wrapped model of several processes: DDP, and SyncBatchNorm on a GPU."""
    index = device if device.index is not None or device.type == "cpu" else torch.device("cuda", 0)
    processes = Processes(0, 2, index)  # a world size of 1 would not wrap the model
    model = segtrain.build_model("gpu_check", num_classes=NUM_CLASSES).to(index)
    wrapped = processes.wrap(model, sync_batchnorm=True)
    synced = any(isinstance(module, nn.SyncBatchNorm) for module in wrapped.modules())
    assert synced == (index.type == "cuda"), "SyncBatchNorm is for GPUs"
    criterion = Criterion(_build_loss({"name": "cross_entropy"}))
    outputs = wrapped(torch.randn(2, 3, 64, 64, device=index))
    criterion(outputs, torch.zeros(2, 64, 64, dtype=torch.long, device=index)).total.backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(grad is not None and bool(grad.isfinite().all()) for grad in gradients)


def check_pinned_memory(device: torch.device) -> None:
    """Check that batches are in pinned memory and reach the device unchanged."""
    if device.type != "cuda":
        raise Skipped("pinned memory needs a GPU")
    for workers in (0, 2):
        with tempfile.TemporaryDirectory() as folder:
            config = small_config(device, folder)
            config["loader"] = {"num_workers": workers}
            with opened(config) as trainer:
                for batch in itertools.islice(trainer.batches(0), 3):
                    moved = trainer.to_device(batch)
                    for key in ("images", "target"):
                        tensor, arrived = batch[key], moved[key]  # type: ignore[literal-required]
                        assert tensor.is_pinned(), f"{key} is not pinned, {workers} workers"
                        assert arrived.is_cuda, f"{key} is on {arrived.device}"
                        assert torch.equal(arrived.cpu(), tensor.to(arrived.dtype)), key


def check_no_waiting(device: torch.device) -> None:
    """Check that a step between two log lines reads no number that it would have to wait for."""
    with small_trainer(device) as trainer:
        stream = trainer.batches(0)
        for _ in range(2):  # libraries are loaded, moments and factors are on the device
            trainer.train_step([next(stream)])
            trainer.step += 1
        batch = next(stream)
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            trainer.train_step([batch])
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")


def check_compile(device: torch.device) -> None:
    """Check 20 steps with ``compile=true``: the first loss is as without, the last is lower."""
    if device.type != "cuda":
        raise Skipped("compiling on a CPU takes minutes; tests/models/test_compile.py does it")
    if importlib.util.find_spec("triton") is None or not any(map(shutil.which, ("gcc", "clang"))):
        raise Skipped("torch.compile needs triton and a C compiler")
    options = {"max_steps": COMPILED_STEPS, "precision": "bf16", "channels_last": True}
    with tempfile.TemporaryDirectory() as folder:
        config = small_config(device, folder, **options)
        config["model"] = {"name": "hrnet_w18_small_v1"}
        with opened(config) as trainer:
            plain = _steps(trainer, 1)[0]
        again = {**config["trainer"], "compile": True}
        with opened({**config, "run_dir": str(Path(folder) / "compiled"), "trainer": again}) as it:
            losses = _steps(it, COMPILED_STEPS)
    assert all(map(math.isfinite, losses)), f"losses {losses}"
    assert math.isclose(losses[0], plain, rel_tol=2e-2), f"{losses[0]} compiled, {plain} without"
    assert losses[-1] < losses[0], f"losses {losses}"


def checks() -> dict[str, Check]:
    """Return all checks by name, the slowest last."""
    losses = {f"loss {name}": partial(check_loss, name) for name in package_losses()}
    return {
        **losses,
        "fit": check_fit,
        "deferred finite check": check_deferred_finite_check,
        "fp16 scaler": check_fp16_scaler,
        "resume": check_resume,
        "sync_batchnorm": check_sync_batchnorm,
        "pinned memory": check_pinned_memory,
        "no waiting": check_no_waiting,
        "compile": check_compile,
    }


def package_losses() -> list[str]:
    """Return the losses of this package, without those of plugins."""
    return [name for name in LOSSES.names() if LOSSES.get(name).__module__.startswith("segtrain.")]
