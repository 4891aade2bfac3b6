"""PyTorch on the CPU: the reference every other runtime is compared with."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hybridnets.bundle import Bundle, check_weights
from hybridnets.fused import apply_form
from hybridnets.preprocess import Preprocessor
from runtimes.base import Arrays, Execution, Probe, Runtime
from runtimes.cpu import has_native

__all__ = ["TorchRuntime", "executed"]


class TorchRuntime(Runtime):
    """The PyTorch network itself, channels-last, FP32 or BF16, compiled on request.

    It reads `weights.safetensors` of the bundle, not the ONNX file: agreement with it proves the conversion. Steps of
    pre- and postprocessing that the bundle's graph does are done here in numpy, as without them.
    """

    name = "torch"
    extra = "torch"
    stored: ClassVar[dict[str, str]] = {"fp32": "fp32", "bf16": "fp32"}

    compiles = True

    _model: Any = None
    _run: Any = None

    @classmethod
    def probe(cls) -> Probe:
        """See `Runtime.probe`."""
        import torch

        # emulated bf16 runs, at a tenth of the speed of fp32: no deployment anybody wants
        problem = "" if has_native("bf16") else "this CPU has no native bf16, PyTorch would emulate it"
        return Probe(version=torch.__version__, precisions={"fp32": "", "bf16": problem})

    @classmethod
    def refuses(cls, bundle: Bundle) -> tuple[str, str] | None:
        """See `Runtime.refuses`."""
        if bundle.weights is not None and bundle.model is not None:
            return None
        return (
            "it holds no weights.safetensors, only the ONNX network",
            "export it again without --no-weights, or use another runtime",
        )

    def _open(self) -> Execution:
        import torch

        # every Python thread that calls torch gets a team of its own
        torch.set_num_threads(max(1, self.options.thread_count // self.options.streams))
        self._load("cpu", {"fp32": torch.float32, "bf16": torch.bfloat16}[self.options.precision])
        parameter = next(self._model.parameters())
        return Execution(
            precision=executed(parameter),
            device=str(parameter.device).upper(),
            threads=torch.get_num_threads(),
            library=f"torch {torch.__version__}",
            details={"memory_format": "channels_last", "compiled": self.options.compile},
        )

    def _load(self, device: str, dtype: Any) -> None:
        """The network on a device, channels-last."""
        import torch

        from hybridnets.checkpoint import build_model, load_checkpoint

        check_weights(self.bundle)
        assert self.bundle.weights is not None
        assert self.bundle.model is not None
        # branches fused as in the ONNX network: what anybody deploys; its equality is part of the export's proof
        model = build_model(load_checkpoint(self.bundle.file(self.bundle.weights)), self.bundle.model).deployed()
        model.to(device=device, dtype=dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._model = model
        self._names = {role: spec.name for role, spec in self.bundle.outputs.items()}
        # loaded once: the graph of other runtimes holds them as a constant
        self._anchors = self.bundle.anchors()
        self._run = torch.compile(self._forward) if self.options.compile else self._forward

    def _forward(self, tensor: Any) -> dict[str, Any]:
        features = self._model.features(tensor)
        results: dict[str, Any] = {}
        if self.bundle.detects:
            results["regression"], results["classification"] = self._model.forward_detection(features)
        if self.bundle.segments and self.bundle.form.segmentation == "lowres":
            logits, _ = self._model.segmentation_head
            results["segmentation"] = logits(self._model.bifpndecoder(features.encoder[0], features.pyramid))
        elif self.bundle.segments:
            results["segmentation"] = self._model.forward_segmentation(features)
        return results

    def _context(self) -> Any:
        # its buffers belong to one thread
        return Preprocessor(self.bundle.target, self.bundle.mean, self.bundle.std)

    def _infer(self, state: Any, inputs: Arrays) -> dict[str, NDArray[Any]]:
        import torch

        image = self._image(state, inputs)
        parameter = next(self._model.parameters())
        with torch.inference_mode():
            tensor = torch.from_numpy(image)
            results = self._run(tensor.to(parameter.dtype).contiguous(memory_format=torch.channels_last))
        return self._named({role: value.float().contiguous().numpy() for role, value in results.items()})

    def _image(self, preprocessor: Preprocessor, inputs: Arrays) -> NDArray[Any]:
        """What the network itself takes: float32 (n, 3, h, w)."""
        image = inputs[self.bundle.input.name]
        if self.bundle.form.input == "uint8":
            image = np.concatenate([preprocessor.normalise(canvas).copy() for canvas in image])
        return image

    def _named(self, raw: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs of the bundle's graph from those of the network itself, by role and float32."""
        outputs = apply_form(
            raw,
            self.bundle.form,
            anchors=self._anchors,
            target=self.bundle.target,
            seg_mode=self.bundle.seg_mode,
        )
        if self._anchors is not None and "anchors" in self._names:
            outputs["anchors"] = self._anchors
        return {self._names[role]: array for role, array in outputs.items()}

    def _close(self) -> None:
        self._model = self._run = None


def executed(parameter: Any) -> str:
    """Our name of the type that a network's weights have."""
    import torch

    names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    return names.get(parameter.dtype, str(parameter.dtype))
