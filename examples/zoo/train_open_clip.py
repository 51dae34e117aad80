"""Trains the zoo's zero-shot classifier: a small CLIP, saved with its own tokenizer.

Captions are class names in many wordings. Each step compares a batch of images with one caption a
class, so that no two captions compete for the same image, in both directions.

References:
    Learning Transferable Visual Models From Natural Language Supervision, Radford et al., 2021,
    https://arxiv.org/abs/2103.00020
    Unified Contrastive Learning in Image-Text-Label Space, Yang et al., 2022,
    https://arxiv.org/abs/2204.03610
"""

from collections.abc import Sequence
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import set_model_preprocess_cfg
from open_clip.push_to_hf_hub import save_for_hf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

import training
from robustify.zoo import fashion_mnist
from training import Recipe

RECIPE = Recipe(epochs=12, learning_rate=2e-3)
CONTEXT = 32
"""Longest text, in tokens; longer ones are cut."""
VOCABULARY = 768
EMBEDDING = 64
SPECIAL = ("<pad>", "<start>", "<end>")
"""Tokens 0, 1 and 2; open_clip expects these ids by default."""

SYNONYMS = (
    ("t-shirt", "tee shirt", "tee", "t-shirt or top"),
    ("trouser", "trousers", "pair of trousers", "pants"),
    ("pullover", "sweater", "jumper"),
    ("dress", "gown", "frock"),
    ("coat", "jacket", "overcoat"),
    ("sandal", "flip-flop", "open shoe"),
    ("shirt", "dress shirt", "blouse"),
    ("sneaker", "trainer", "running shoe"),
    ("bag", "handbag", "purse"),
    ("ankle boot", "boot", "high boot"),
)
"""Names of each class, in the order of `fashion_mnist.CLASSES` and beginning with its names."""

TEMPLATES = (
    "{}",
    "a {}",
    "a {}.",
    "the {}",
    "a photo of a {}",
    "an image of a {}",
    "this is a {}.",
    "a grayscale photo of a {}.",
    "a photo of a {}, a piece of clothing.",
    "a photo of a {}, a fashion product.",
    "a thumbnail of a {} from an online shop.",
)
"""Wordings besides open_clip's own."""


def captions() -> list[list[str]]:
    """All captions of each class: every template about every synonym."""
    return [
        [template.format(name) for template in TEMPLATES for name in names]
        + [template(name) for template in open_clip.OPENAI_IMAGENET_TEMPLATES for name in names]
        for names in SYNONYMS
    ]


def build_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A lowercasing byte-level BPE, learnt from `texts`; it falls back to bytes, so it reads any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    pad, start, end = SPECIAL
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, SPECIAL.index(start)), (end, SPECIAL.index(end))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, bos_token=start, eos_token=end, model_max_length=CONTEXT
    )


def model_config(vocabulary: int) -> dict[str, object]:
    """What open_clip builds the model from: a tiny timm ResNet and a two-layer text transformer."""
    return {
        "embed_dim": EMBEDDING,
        "vision_cfg": {
            "timm_model_name": "test_resnet",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": 32,
        },
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": vocabulary,
            "hf_tokenizer_name": "byte-level",  # any name: open_clip then reads the tokenizer from the folder
            "width": 64,
            "heads": 2,
            "layers": 2,
            "pool_type": "eos",
            "pad_id": SPECIAL.index("<pad>"),
            "eos_id": SPECIAL.index("<end>"),
        },
    }


def load(folder: Path, templates: Sequence[object]) -> training.Scores:
    """The saved model's zero-shot classifier, as a map from gray pixels in [0, 1] to similarities."""
    name = f"local-dir:{folder.resolve()}"
    model, _, _ = open_clip.create_model_and_transforms(name)
    model.eval()
    weights = open_clip.build_zero_shot_classifier(
        model, open_clip.get_tokenizer(name), fashion_mnist.CLASSES, templates
    )
    mean, std = (torch.tensor(model.visual.preprocess_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))

    def scores(pixels: Tensor) -> Tensor:
        features: Tensor = model.encode_image((pixels - mean) / std, normalize=True)
        similarities: Tensor = features @ weights
        return similarities

    return scores


def contrastive_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each image over the captions and of each caption over its class's images.

    Arguments:
        logits: Scaled similarities of images and captions, shape (B, 10).
        labels: Which caption describes each image, shape (B).
    """
    same = F.one_hot(labels, logits.shape[1]).float()
    by_image = F.cross_entropy(logits, labels, label_smoothing=0.05)
    by_caption = F.cross_entropy(logits.T, (same / same.sum(0).clamp(min=1)).T)
    return (by_image + by_caption) / 2


def train(data: Path, out: Path, *, seed: int = 0, recipe: Recipe = RECIPE) -> dict[str, object]:
    """Trains on the training split alone, saves the folder and returns its record."""
    torch.manual_seed(seed)
    split = fashion_mnist.read("train", data)
    mean, std = training.pixel_statistics(split[0])
    texts = captions()
    tokenizer = build_tokenizer([text for of_class in texts for text in of_class])
    config = model_config(len(tokenizer))
    network = open_clip.CLIP(**config)
    set_model_preprocess_cfg(
        network,
        {"mean": (mean,) * 3, "std": (std,) * 3, "interpolation": "bicubic", "resize_mode": "shortest"},
    )
    tokens = [tokenize(tokenizer, of_class) for of_class in texts]
    generator = torch.Generator().manual_seed(seed)

    def loss(network: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
        chosen = [rows[torch.randint(len(rows), (), generator=generator)] for rows in tokens]
        images, descriptions, scale = network(((pixels - mean) / std).expand(-1, 3, -1, -1), torch.stack(chosen))
        return contrastive_loss((scale * images @ descriptions.T).float(), labels)

    seconds = training.fit(network, loss, split, recipe, seed=seed)
    save_for_hf(network, tokenizer, config, str(out), safe_serialization=True)
    return {
        **training.report("open_clip, zero-shot", network, recipe, seconds=seconds, seed=seed),
        **zero_shot_accuracies(out, fashion_mnist.read("test", data)),
    }


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Tensor:
    """Token ids, int64 of shape (len(texts), CONTEXT)."""
    encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt")
    ids: Tensor = encoded["input_ids"]
    return ids


def zero_shot_accuracies(folder: Path, test: training.Split) -> dict[str, object]:
    """Accuracy with one plain template, and with each of open_clip's two sets of them."""
    sets: dict[str, Sequence[object]] = {
        "accuracy": ["a photo of a {}."],
        "accuracy_simple_templates": open_clip.SIMPLE_IMAGENET_TEMPLATES,
        "accuracy_openai_templates": open_clip.OPENAI_IMAGENET_TEMPLATES,
    }
    return {key: training.accuracies(load(folder, templates), test) for key, templates in sets.items()}
