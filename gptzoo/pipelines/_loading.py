"""From a task and a name to a pipeline: the framework, the device, the model and its tokenizer."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from gptzoo._devices import device_of_map, devices, find_device
from gptzoo._extras import FRAMEWORKS, missing
from gptzoo._runners import Runner, framework_of, import_framework, placing, runner_of
from gptzoo._settings import short
from gptzoo.errors import CheckpointError, InputError, MissingExtraError
from gptzoo.heads import AUTO_HEADS
from gptzoo.hub import DEFAULT_MODEL, HubOptions
from gptzoo.pipelines._base import Pipeline
from gptzoo.pipelines._feature_extraction import FeatureExtractionPipeline
from gptzoo.pipelines._question_answering import QuestionAnsweringPipeline
from gptzoo.pipelines._text_classification import TextClassificationPipeline
from gptzoo.pipelines._text_generation import TextGenerationPipeline
from gptzoo.pipelines._token_classification import TokenClassificationPipeline
from gptzoo.tokenization import AutoTokenizer

TASKS: dict[str, type[Pipeline]] = {
    cls.task: cls
    for cls in (
        TextGenerationPipeline,
        TextClassificationPipeline,
        TokenClassificationPipeline,
        QuestionAnsweringPipeline,
        FeatureExtractionPipeline,
    )
}
OLD_TASKS = {"sentiment-analysis": "text-classification", "ner": "token-classification"}
OLD_FRAMEWORKS = {"pt": "torch", "tf": "keras", "jax": "flax"}
DEFAULT_MODELS = {"text-generation": DEFAULT_MODEL}
HARMLESS = {"trust_remote_code": (None, False)} | dict.fromkeys(
    ("feature_extractor", "image_processor", "video_processor", "processor", "pipeline_class"), (None,)
)  # arguments of Transformers' pipeline -> their values that ask for nothing
AUTO_CLASSES = {head: name for name, head in AUTO_HEADS.items()}


def pipeline(
    task: str,
    model: Any = None,
    *,
    tokenizer: Any = None,
    config: Any = None,
    framework: str | None = None,
    dtype: Any = None,
    torch_dtype: Any = None,
    device: Any = None,
    device_map: Any = None,
    batch_size: int = 1,
    use_fast: bool = True,
    model_kwargs: dict[str, Any] | None = None,
    **options: Any,
) -> Pipeline:
    """Makes a function of texts: a model, its tokenizer, and a task.

    Args:
        task: "text-generation", "text-classification", "token-classification", "question-answering" or
            "feature-extraction"; or "sentiment-analysis" or "ner", older names of the second and third.
        model: a path or a name; or a model of any framework. None: the bundled one, for text generation.
        tokenizer: a path or a name, or a tokenizer; None: that beside the model.
        config: in place of the checkpoint's own, or its path.
        framework: "torch", "keras" or "flax"; None: the model's, or else the first that is installed.
        dtype, torch_dtype: of the weights and the computation; None or "auto": as stored.
        device: "cpu", "cuda:0", "gpu", ...; an accelerator's number; -1 for the CPU. None: the first accelerator, or
            else the CPU; for a model that is given as such, where it is.
        device_map: "auto" is `device=None`; a device's name is `device`.
        batch_size: how many rows go through the model together.
        use_fast: as of `AutoTokenizer.from_pretrained`, where the tokenizer is loaded.
        model_kwargs: further arguments of `from_pretrained`.
        options: those of the task, for every call; and those of `gptzoo.hub.HubOptions`, such as `revision`. Further
            arguments of Transformers' pipeline are taken where they ask for nothing: `trust_remote_code=False`.

    Raises:
        InputError: an argument is wrong, or there is no such task, framework or device.
        CheckpointError: the checkpoint cannot be loaded, or has no head for the task.
        MissingExtraError: the framework is not installed.
    """
    cls = task_class(task)
    require_harmless({"use_fast": use_fast} | options)
    options = {name: value for name, value in options.items() if name not in HARMLESS}
    names = {entry.name for entry in fields(HubOptions)}
    hub = {name: options.pop(name) for name in names & options.keys()}
    dtype = torch_dtype if dtype is None else dtype
    if device_map is not None:
        device = device_of_map(device, device_map)
    model = DEFAULT_MODELS.get(cls.task) if model is None else model
    if model is None:
        raise InputError(f"model: none given, expected one: there is no default for {cls.task}")
    if isinstance(model, str | Path):
        further = {"config": config, "dtype": dtype} | hub | (model_kwargs or {})
        runner = load(cls, model, choose_framework(framework), device, further)
    else:
        given = {"config": config, "dtype": dtype, "model_kwargs": model_kwargs} | hub
        runner = wrap(model, framework, device, given)
        if tokenizer is None:
            raise InputError("tokenizer: none given, expected one beside a model that is no path and no name")
    source = model if tokenizer is None else tokenizer
    if isinstance(source, str | Path):
        source = AutoTokenizer.from_pretrained(source, use_fast=use_fast, **hub)
    return cls(runner, source, batch_size, **options)


def require_harmless(given: dict[str, Any]) -> None:
    """Raises an error that lists arguments of `pipeline` that ask for what is not there."""
    known = HARMLESS | {"use_fast": (True, False)}
    problems = [
        f"{name}: {short(value)}, expected {' or '.join(map(str, known[name]))}"
        for name, value in given.items()
        if name in known and not any(value is one for one in known[name])
    ]
    if problems:
        raise InputError.listing("pipeline", problems)


def task_class(task: Any) -> type[Pipeline]:
    """Returns the pipeline of a task, also by its older name."""
    name = OLD_TASKS.get(task, task) if isinstance(task, str) else task
    if not isinstance(name, str) or name not in TASKS:
        raise InputError(f"task: {short(task)}, expected one of {', '.join([*TASKS, *OLD_TASKS])}")
    return TASKS[name]


def choose_framework(wanted: Any) -> str:
    """Returns a framework by its name or older name; None: the first that is installed."""
    if wanted is None:
        if found := next((name for name in FRAMEWORKS if not missing(name)), None):
            return found
        needed = ", ".join(f"pip install 'gptzoo[{name}]'" for name in FRAMEWORKS)
        raise MissingExtraError(f"no framework is installed: {needed}")
    name = OLD_FRAMEWORKS.get(wanted, wanted) if isinstance(wanted, str) else wanted
    if not isinstance(name, str) or name not in FRAMEWORKS:
        raise InputError(f"framework: {short(wanted)}, expected one of {', '.join([*FRAMEWORKS, *OLD_FRAMEWORKS])}")
    return name


def load(cls: type[Pipeline], path: str | Path, framework: str, device: Any, further: dict[str, Any]) -> Runner:
    """Loads a checkpoint as the model that a task needs.

    Raises:
        CheckpointError: it has no head for the task, so that its results would be chance.
    """
    models = import_framework(framework)
    _, place = find_device(framework, device)
    with placing(framework, place):
        on = {"device": place} if framework != "flax" else {}
        model = getattr(models, AUTO_CLASSES[cls.heads[0]]).from_pretrained(path, **on, **further)
    if framework == "flax":
        move(framework, model, place)  # where its arrays are now, and then have to stay
    if fresh := model.load_report.fresh:
        found = ", ".join(model.config.architectures or ["a model without a head"])
        raise CheckpointError(
            f"{short(str(path))}: {found} without trained {', '.join(fresh)}, expected a {type(model).__name__}"
        )
    return runner_of(framework, model, place)


def wrap(model: Any, framework: str | None, device: Any, given: dict[str, Any]) -> Runner:
    """Takes a model as it is, on another device if one is named."""
    found = framework_of(model, "a path, a name, or a model of gptzoo")
    problems = [
        f"{name}: given, expected only with a path or name" for name, value in given.items() if value is not None
    ]
    if framework is not None and choose_framework(framework) != found:
        problems.append(f"framework: {framework}, expected {found}, the model's")
    if problems:
        raise InputError.listing("model", problems)
    if device is None:
        return runner_of(found, model)
    _, place = find_device(found, device)
    move(found, model, place)
    return runner_of(found, model, place)


def move(framework: str, model: Any, place: Any) -> None:
    """Puts a model on a device.

    Raises:
        InputError: it is one of Keras, whose variables stay where they were made, and there are several devices.
    """
    if framework == "torch":
        model.to(place)
    elif framework == "flax":
        import jax
        from flax import nnx

        nnx.update(model, jax.device_put(nnx.state(model), place))
    elif len(devices(framework)) > 1:
        raise InputError(f"device: {place}, expected none: a Keras model stays where it was made; load it by its path")
