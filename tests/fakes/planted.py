"""Faults of the kind that real pipelines have had, planted in this project's code from outside, as a bug would be.

``plant`` writes a ``sitecustomize.py`` that every Python process of a command loads when its folder is on
``PYTHONPATH``. The process that drives a run and its workers then find one function changed, as soon as its module is
imported; the product has no hook for it.
"""

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

VARIABLE = "SCARLET_PLANTED_FAULT"
Patch = Callable[[ModuleType], None]

_START = """import importlib.util
_spec = importlib.util.spec_from_file_location("planted", {path!r})
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
_module.install()
"""


def plant(folder: Path, fault: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a command whose code has this fault; ``folder`` takes the file that brings it about.

    Raises:
        KeyError: there is no such fault.
    """
    FAULTS[fault]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_START.format(path=str(Path(__file__).resolve())))
    path = os.pathsep.join(filter(None, [str(folder), environment.get("PYTHONPATH", "")]))
    return {**environment, "PYTHONPATH": path, VARIABLE: fault}


def install() -> None:
    """Has the fault named in the environment planted as soon as the modules it lives in are imported."""
    patches = FAULTS.get(os.environ.get(VARIABLE, ""))
    if patches:
        sys.meta_path.insert(0, _Planter(patches))


class _Planter:
    """Finds the modules to be patched by the ordinary way, and patches them once they are executed."""

    def __init__(self, patches: Mapping[str, Patch]) -> None:
        self._patches = dict(patches)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        patch = self._patches.pop(name, None)  # so that the search below does not come here again
        if patch is None:
            return None
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        ordinary = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            ordinary(module)
            patch(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _dali_decodes(**other: Any) -> Patch:
    def patch(dali_graph: Any) -> None:
        def decoded(encoded: Any, place: Any) -> Any:
            _, fn, types = dali_graph.import_dali()
            how = {"output_type": types.RGB, "adjust_orientation": False}
            how |= {name: getattr(types, value) if name == "output_type" else value for name, value in other.items()}
            return fn.decoders.image(encoded, device="cpu", **how)

        dali_graph.decoded = decoded

    return patch


def _dali_resizes_bicubic(dali_graph: Any) -> None:
    ordinary = dali_graph.import_dali

    class Types:
        def __init__(self, types: Any) -> None:
            self._types = types

        def __getattr__(self, name: str) -> Any:
            return getattr(self._types, "INTERP_CUBIC" if name == "INTERP_LINEAR" else name)

    def import_dali() -> tuple[Any, Any, Any]:
        dali, fn, types = ordinary()
        return dali, fn, Types(types)

    dali_graph.import_dali = import_dali


def _floors_crop(module: Any) -> None:
    module.crop_offset = lambda height, width, crop: ((height - crop) // 2, (width - crop) // 2)


def _takes_other_mean(*classes: str) -> Patch:
    """The pipeline's classes are given a mean of one half in each channel."""

    def patch(module: Any) -> None:
        for name in classes:
            _wrap_init(getattr(module, name))

    return patch


def _wrap_init(class_: Any) -> None:
    ordinary = class_.__init__

    def init(self: Any, *args: Any, **more: Any) -> None:
        ordinary(self, *args, **more)
        self._preprocess = replace(self._preprocess, mean=(0.5, 0.5, 0.5))

    class_.__init__ = init


def _turbo_decodes_bgr(turbo_image: Any) -> None:
    ordinary = turbo_image.import_turbo

    def import_turbo() -> tuple[Any, Any]:
        decode, torch = ordinary()
        return (lambda data, colours, **more: decode(data, "BGR", **more)), torch

    turbo_image.import_turbo = import_turbo


def _turbo_resizes_bicubic(turbo_image: Any) -> None:
    ordinary = turbo_image.TurboImage.__init__

    def init(self: Any, preprocess: Any) -> None:
        ordinary(self, preprocess)
        self._resize = self._torch.ops.aten._upsample_bicubic2d_aa.out

    turbo_image.TurboImage.__init__ = init


def _turbo_applies_exif(turbo_image: Any) -> None:
    ordinary = turbo_image.TurboImage._decoded

    def decoded(self: Any, data: Any, out: Any, strict: bool) -> Any:
        import io

        import numpy as np
        from PIL import Image, ImageOps

        pixels = ordinary(self, data, out, strict)
        image = Image.fromarray(pixels)
        with Image.open(io.BytesIO(bytes(data))) as file:
            image.getexif().update(file.getexif())
        # As high as before, since the rows to be resized are settled by then: a bug would not be better made.
        return np.array(ImageOps.exif_transpose(image).resize((pixels.shape[1], pixels.shape[0])))

    turbo_image.TurboImage._decoded = decoded


def _reference_opens(change: Callable[[Any, Any], Any]) -> Patch:
    """Changes what the reference makes of a file, before anything else is done to it."""

    def patch(reference: Any) -> None:
        ordinary = reference._open_rgb
        reference._open_rgb = lambda path: change(path, ordinary(path))

    return patch


def _bgr(path: Any, image: Any) -> Any:
    from PIL import Image

    red, green, blue = image.split()
    return Image.merge("RGB", (blue, green, red))


def _upright(path: Any, image: Any) -> Any:
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        image.getexif().update(file.getexif())
    return ImageOps.exif_transpose(image)


def _reference_resizes_bicubic(reference: Any) -> None:
    reference.interpolation_filter = lambda preprocess: reference.FILTERS["bicubic"]


def _model_has_other_mean(zoo: Any) -> None:
    ordinary = zoo.resolve
    zoo.resolve = lambda name: replace(ordinary(name), mean=(0.5, 0.5, 0.5))


def _exports_relu6(onnx_export: Any) -> None:
    """The export writes ReLU6 (Clip from 0 to 6) where the network has h-swish."""
    ordinary = onnx_export._use_flatten

    def use_flatten(graph: Any) -> None:
        import numpy as np
        from onnx import numpy_helper

        ordinary(graph)
        limits = {"planted_low": 0.0, "planted_high": 6.0}
        graph.initializer.extend(numpy_helper.from_array(np.float32(value), name) for name, value in limits.items())
        swishes = [node for node in graph.node if node.op_type == "HardSwish"]
        assert swishes, "the graph has no HardSwish to be replaced"
        for node in swishes:
            node.op_type = "Clip"
            node.input.extend(limits)
            del node.attribute[:]

    onnx_export._use_flatten = use_flatten


def _accepts_any_export(parity: Any) -> None:
    parity.check = lambda found, tolerance=0.0: None


PERMUTED = "mb_module.0.conv3.weight"  # the first block's projection: a 1x1 convolution to 32 channels


def _swap_two_channels(state: Any) -> None:
    state[PERMUTED][[3, 4]] = state[PERMUTED][[4, 3]].clone()


def _loads_permuted(demo: Any) -> None:
    ordinary = demo.load_state

    def load_state(name: str) -> Any:
        state = ordinary(name)
        _swap_two_channels(state)
        return state

    demo.load_state = load_state


def _builds_permuted(zoo: Any) -> None:
    """As above, after the digest of the weights was taken: nothing but the predictions can tell."""
    ordinary = zoo.build

    def build(*args: Any, **more: Any) -> Any:
        import torch

        built = ordinary(*args, **more)
        with torch.no_grad():
            _swap_two_channels(built.module.state_dict())
        return built

    zoo.build = build


def _shrinks_logits(onnxruntime: Any) -> None:
    """Every lead shrinks by a few hundredths, and the first class stays the first."""
    backend = onnxruntime.OnnxRuntime
    ordinary = backend.infer
    backend.infer = lambda self, pixels: ordinary(self, pixels) * 0.97


def _fake_as_the_graph_says(fake: Any) -> None:
    """The fake backend takes 10 % longer and errs where the text of the graph has the words ``slow`` and ``wrong``."""
    ordinary = fake.Fake.load

    def load(self: Any, case: Any, files: Any) -> None:
        import numpy as np

        ordinary(self, case, files)
        text = Path(files.onnx).read_bytes()
        self._told["latency_ns"] *= 1.1 if b"slow" in text else 1.0
        wrong = 5 if b"wrong" in text else 0
        self._logits = lambda pixels: np.eye(1000, dtype=np.float32)[np.full(len(pixels), wrong)]

    fake.Fake.load = load


def _ranks_folders(imagenet: Any) -> None:
    ordinary, all_classes = imagenet._image_set, imagenet.wnids

    def image_set(root: Path, found: Any) -> Any:
        imagenet.wnids = lambda: tuple(sorted(found.classes))
        try:
            return ordinary(root, found)
        finally:
            imagenet.wnids = all_classes

    imagenet._image_set = image_set


Batches = Iterator[Any]


def _task_reads(change: Callable[[Batches], Batches]) -> Patch:
    """The accuracy task gets other batches than the pipeline gave; the preprocessing gate reads the pipeline itself."""

    def patch(accuracy: Any) -> None:
        ordinary = accuracy.AccuracyTask.__init__

        def init(self: Any, *args: Any) -> None:
            ordinary(self, *args)
            self._batches = change(self._batches)

        accuracy.AccuracyTask.__init__ = init

    return patch


def _collates(change: Callable[[Batches], Batches]) -> Patch:
    """All pipelines give other batches."""

    def patch(base: Any) -> None:
        ordinary = base.Passes.__iter__
        base.Passes.__iter__ = lambda pipeline: iter(change(ordinary(pipeline)))

    return patch


def _in_another_order(batches: Batches) -> Batches:
    """The pixels of whole batches, as they come from threads that nobody puts in order, under the right indices."""
    read = list(batches)
    sizes = [len(batch.indices) for batch in read]
    whole = [place for place, size in enumerate(sizes) if size == max(sizes)]
    turned = {place: whole[(number + 1) % len(whole)] for number, place in enumerate(whole)}
    for place, batch in enumerate(read):
        yield replace(batch, pixels=read[turned.get(place, place)].pixels)


def _without_the_last(batches: Batches) -> Batches:
    held = None
    for batch in batches:
        if held is not None:
            yield held
        held = batch


def _with_one_twice(batches: Batches) -> Batches:
    """The first batch's last image comes again as one more of the second."""
    import numpy as np

    last = None
    for number, batch in enumerate(batches):
        if number == 1 and last is not None:
            indices = np.append(last.indices[-1:], batch.indices)
            batch = replace(batch, indices=indices, pixels=np.concatenate([last.pixels[-1:], batch.pixels]))
        last = batch
        yield batch


def _off_by_one(batches: Batches) -> Batches:
    """As above, with the right indices: all later images get their predecessor's pixels, and the last one is lost."""
    import numpy as np

    kept = None
    for batch in batches:
        pixels = batch.pixels if kept is None else np.concatenate([kept, batch.pixels[:-1]])
        kept = batch.pixels[-1:].copy()
        yield replace(batch, pixels=pixels)


# Each fault: module -> what is changed in it.
FAULTS: dict[str, dict[str, Patch]] = {
    "dali-bgr": {"pipelines.dali.graph": _dali_decodes(output_type="BGR")},
    "dali-bicubic": {"pipelines.dali.graph": _dali_resizes_bicubic},
    "dali-floor-crop": {"pipelines.dali.graph": _floors_crop},
    "dali-exif": {"pipelines.dali.graph": _dali_decodes(adjust_orientation=True)},
    "dali-mean": {
        "pipelines.dali.pipeline": _takes_other_mean("DaliPipeline"),
        "pipelines.dali.stages": _takes_other_mean("DaliStages"),
    },
    "turbo-bgr": {"pipelines.turbo.image": _turbo_decodes_bgr},
    "turbo-bicubic": {"pipelines.turbo.image": _turbo_resizes_bicubic},
    "turbo-floor-crop": {"pipelines.turbo.image": _floors_crop, "pipelines.turbo.pipeline": _floors_crop},
    "turbo-exif": {"pipelines.turbo.image": _turbo_applies_exif},
    "turbo-mean": {"pipelines.turbo.pipeline": _takes_other_mean("TurboPipeline", "TurboStages")},
    "all-bgr": {"pipelines.reference.pipeline": _reference_opens(_bgr)},
    "all-bicubic": {"pipelines.reference.pipeline": _reference_resizes_bicubic},
    "all-floor-crop": {"pipelines.reference.pipeline": _floors_crop},
    "all-exif": {"pipelines.reference.pipeline": _reference_opens(_upright)},
    "all-mean": {"scarlet.zoo": _model_has_other_mean},
    "relu6": {"export.onnx": _exports_relu6},
    "relu6-unchecked": {"export.onnx": _exports_relu6, "export.parity": _accepts_any_export},
    "permuted": {"scarlet.demo": _loads_permuted},
    "permuted-later": {"scarlet.zoo": _builds_permuted},
    "leak": {"bench.backends.onnxruntime.backend": _shrinks_logits},
    "graph-says": {"bench.backends.fake": _fake_as_the_graph_says},
    "shuffled": {"bench.worker.tasks.accuracy": _task_reads(_in_another_order)},
    "shuffled-pipeline": {"pipelines.base": _collates(_in_another_order)},
    "folder-rank": {"pipelines.imagenet.find": _ranks_folders},
    "last-dropped": {"bench.worker.tasks.accuracy": _task_reads(_without_the_last)},
    "last-dropped-pipeline": {"pipelines.base": _collates(_without_the_last)},
    "twice": {"bench.worker.tasks.accuracy": _task_reads(_with_one_twice)},
    "twice-off-by-one": {"bench.worker.tasks.accuracy": _task_reads(_off_by_one)},
}
