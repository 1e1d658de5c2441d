"""How the student learns: from what the teacher says of photographs, and from which show the same model.

References: hints for the maps inside: Romero et al. 2015, FitNets (arXiv:1412.6550); similarities of the teacher: Park
et al. 2019, relational knowledge distillation (doi:10.1109/CVPR.2019.00409), with the batches before: Fang et al. 2021,
SEED (arXiv:2101.04731); contrast with the batches before: Khosla et al. 2020 (arXiv:2004.11362), Wang et al. 2020,
cross-batch memory (doi:10.1109/CVPR42600.2020.00642).
"""

import copy
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pipeline.features.start_network import BLOCKS, CHANNELS
from pipeline.start.augmentation import augment
from pipeline.start.garments import N_KINDS
from pipeline.start.student import Backbone
from pipeline.start.teacher import Lessons

EXITS = ("mixed2", "mixed4", "mixed7")  # blocks that learn; features are read off one of them
EXIT_WEIGHTS = (0.4, 0.7, 1.0)
MODELS_PER_BATCH, IMAGES_PER_MODEL = 18, 2
LEARNING_RATE, WARMUP_STEPS = 0.0005, 150
WEIGHT_DECAY = 0.02
SIZES = ((0.5, 96), (1.0, 128))  # pixels per side up to this part of the training; small is fast
TEMPERATURE = 0.1  # of similarities between photographs
MEMORY, MEMORY_FROM = 720, 60  # photographs of former batches to contrast with, from this step on
CONTRAST_WEIGHT, FEATURE_WEIGHT, SIMILARITY_WEIGHT, MAP_WEIGHT, KIND_WEIGHT = 0.7, 2.5, 0.7, 4.0, 0.3
OWN_SHARE = 0.5  # of the photograph itself in the features to learn; the rest is the mean of its model
AVERAGE_MOMENTUM = 0.995  # of the average of the weights over the last steps, which is what is kept
CENTRE_MOMENTUM = 0.98  # of the mean feature, which is subtracted


class Lesson(NamedTuple):
    """Photographs with their models and what the teacher says of them."""

    images_rgb: np.ndarray  # uint8 (n, size, size, 3)
    models: np.ndarray  # int (n,)
    lessons: Lessons
    kinds: np.ndarray  # int (n,), the kind of a garment; -1 of what is none


class Student(nn.Module):
    """The backbone with linear layers that turn its maps and features into the teacher's, and name kinds of clothes."""

    def __init__(self) -> None:
        super().__init__()
        channels = [CHANNELS[BLOCKS.index(block)] for block in EXITS]
        self.backbone = Backbone(EXITS[-1], EXITS)
        self.feature_heads = nn.ModuleList(nn.Linear(n, 1280) for n in channels)
        self.map_heads = nn.ModuleList(nn.Conv2d(n, m, 1) for n, m in zip(channels, (152, 320, 320), strict=True))
        self.kind_heads = nn.ModuleList(nn.Linear(n, N_KINDS) for n in channels)
        for i, n in enumerate(channels):
            self.register_buffer(f"centre_{i}", torch.zeros(n))

    def forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return the exits' maps and their features of length 1, float32."""
        with torch.autocast("cpu", torch.bfloat16):
            maps = self.backbone(x)
        maps = [values.float() for values in maps]
        return maps, [functional.normalize(values.mean(dim=(2, 3)), dim=1) for values in maps]


def contrast(features: torch.Tensor, models: torch.Tensor, memory: list[torch.Tensor]) -> torch.Tensor:
    """Return how badly photographs of one model lie together among those of the batch and of `memory`.

    features : float32 (n, n_features), of length 1
    memory : features, models, and the teacher's features of former batches, or empty
    """
    itself = torch.eye(len(features), dtype=torch.bool)
    near = (features @ features.T / TEMPERATURE).masked_fill(itself, -1e9)
    same = (models[:, None] == models[None]) & ~itself
    if memory:
        near = torch.cat([near, features @ memory[0].T / TEMPERATURE], 1)
        same = torch.cat([same, models[:, None] == memory[1][None]], 1)
    chances = functional.log_softmax(near, 1).masked_fill(~same, 0)
    return -(chances.sum(1) / same.sum(1).clamp(min=1)).mean()


def similarity_loss(features: torch.Tensor, taught: torch.Tensor, memory: list[torch.Tensor]) -> torch.Tensor:
    """Return the divergence of the student's neighbours in the batch and the memory from the teacher's."""
    student, teacher = (f @ f.T / TEMPERATURE for f in (features, taught))
    for near in (student, teacher):
        near.fill_diagonal_(-1e9)
    if memory:
        student = torch.cat([student, features @ memory[0].T / TEMPERATURE], 1)
        teacher = torch.cat([teacher, taught @ memory[2].T / TEMPERATURE], 1)
    return functional.kl_div(functional.log_softmax(student, 1), functional.softmax(teacher, 1), reduction="batchmean")


class Targets:
    """What the student has to say, made from the teacher's lessons."""

    def __init__(self, lesson: Lesson):
        self.lesson = lesson
        self.mean = lesson.lessons.features.astype(np.float32).mean(axis=0)
        sample = slice(0, 300)  # enough for a mean and a deviation of each channel
        self.scales = []
        for maps in (lesson.lessons.middle, lesson.lessons.last):
            values = maps[sample].astype(np.float32)
            self.scales.append([values.mean((0, 2, 3), keepdims=True), values.std((0, 2, 3), keepdims=True) + 1e-3])
        order = np.argsort(lesson.models, kind="stable")
        begins = np.searchsorted(lesson.models[order], np.unique(lesson.models))
        self.members = np.split(order, begins[1:])  # the photographs of each model
        self.model_of = np.unique(lesson.models, return_inverse=True)[1]

    def features(self, indices: np.ndarray) -> torch.Tensor:
        """Return features to learn, of length 1: float32 (n, 1280)."""
        found = []
        for i in indices:
            members = self.members[self.model_of[i]]
            taught = self.lesson.lessons.features[np.r_[i, members]].astype(np.float32) - self.mean
            taught /= np.maximum(np.linalg.norm(taught, axis=1, keepdims=True), 1e-9)
            found.append(OWN_SHARE * taught[0] + (1 - OWN_SHARE) * taught[1:].mean(axis=0))
        return functional.normalize(torch.from_numpy(np.stack(found)), dim=1)

    def maps(self, indices: np.ndarray) -> list[torch.Tensor]:
        """Return the teacher's maps, each channel with mean 0 and deviation 1 over all photographs, float32."""
        every = (self.lesson.lessons.middle, self.lesson.lessons.last)
        early, late = [
            torch.from_numpy((maps[indices].astype(np.float32) - mean) / deviation)
            for maps, (mean, deviation) in zip(every, self.scales, strict=True)
        ]
        return [early, late, late]

    def choose(self, rng: np.random.Generator) -> np.ndarray:
        """Return the photographs of a batch: IMAGES_PER_MODEL of MODELS_PER_BATCH models."""
        chosen = rng.choice(len(self.members), min(MODELS_PER_BATCH, len(self.members)), replace=False)
        return np.concatenate([rng.choice(self.members[model], IMAGES_PER_MODEL) for model in chosen])


def train_student(lesson: Lesson, n_steps: int, seed: int) -> Iterator[tuple[Student, float]]:
    """Train a student; after each step give the average of its weights over the last steps, and the loss."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    student = Student().to(memory_format=torch.channels_last)
    average = copy.deepcopy(student).eval()
    targets = Targets(lesson)
    memories: list[list] = [[] for _ in EXITS]
    trained = [p for p in student.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, LEARNING_RATE, betas=(0.9, 0.99))
    for step in range(n_steps):
        done = step / n_steps
        rate = LEARNING_RATE * min(1, (step + 1) / WARMUP_STEPS) * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)
        for group in optimizer.param_groups:
            group["lr"] = rate
        size = next(size for until, size in SIZES if done < until)
        indices = targets.choose(rng)
        loss = loss_of(student.train(), lesson, targets, indices, augment(lesson.images_rgb[indices], size, rng),
                       memories, step)  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 5.0)
        optimizer.step()
        momentum = min(AVERAGE_MOMENTUM, (1 + step) / (20 + step))
        with torch.no_grad():
            for mean, value in zip(average.state_dict().values(), student.state_dict().values(), strict=True):
                if mean.dtype.is_floating_point:
                    mean.mul_(momentum).add_(value, alpha=1 - momentum)
        yield average, float(loss.detach())


def loss_of(
    student: Student,
    lesson: Lesson,
    targets: Targets,
    indices: np.ndarray,
    augmented: tuple[torch.Tensor, torch.Tensor],
    memories: list[list[torch.Tensor]],
    step: int,
) -> torch.Tensor:
    """Return the loss of a batch; the means of features and `memories` go on in place."""
    inputs, affine = augmented
    models, kinds = (torch.from_numpy(values[indices]) for values in (lesson.models, lesson.kinds))
    taught, taught_maps = targets.features(indices), targets.maps(indices)
    loss = torch.zeros(())
    for k, (maps, features) in enumerate(zip(*student(inputs), strict=True)):
        centre = getattr(student, f"centre_{k}")
        centre.mul_(CENTRE_MOMENTUM).add_(features.detach().mean(0), alpha=1 - CENTRE_MOMENTUM)
        centred = functional.normalize(features - centre, dim=1)
        memory = memories[k] if step > MEMORY_FROM else []
        part = CONTRAST_WEIGHT * contrast(centred, models, memory)
        said = student.feature_heads[k](centred * 4)
        part = part + FEATURE_WEIGHT * (1 - functional.cosine_similarity(said, taught)).mean()
        part = part + SIMILARITY_WEIGHT * similarity_loss(centred, taught, memory)
        if (kinds >= 0).any():
            named = student.kind_heads[k](centred[kinds >= 0] * 4)
            part = part + KIND_WEIGHT * functional.cross_entropy(named, kinds[kinds >= 0])
        said_maps = student.map_heads[k](maps)
        grid = functional.affine_grid(affine, [len(maps), 1, *said_maps.shape[2:]], align_corners=False)
        warped = functional.grid_sample(taught_maps[k], grid, padding_mode="border", align_corners=False)
        loss = loss + EXIT_WEIGHTS[k] * part + MAP_WEIGHT * functional.smooth_l1_loss(said_maps, warped)
        kept = [centred.detach(), models, taught]
        before = memories[k] or [values[:0] for values in kept]
        memories[k][:] = [torch.cat(pair)[:MEMORY] for pair in zip(kept, before, strict=True)]
    return loss
