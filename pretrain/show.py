"""``densessl show``: what a backbone attends to in two views of an image, and what it matches."""

import logging
from dataclasses import dataclass
from pathlib import Path

from console import log
from console.errors import InputError, unknown
from console.files import write_atomic
from console.parser import Parser
from console.progress import track

COLOURS = ("#ffb000", "#00b4d8")  # of view 1 and view 2


def main(argv: list[str]) -> int:
    """Draw, for every image, two views with their boxes, attention, salient sets and matches.

    For a checkpoint trained with multi-crop also what its local crops find in the global view.
    """
    args = _parser().parse_args(argv)
    images = [Path(image) for image in args.images]
    for image in images:
        _require_readable(image)
    if args.size is not None and args.size < 32:
        raise InputError(f"--size is {args.size}; allowed: 32 pixels or more")
    model = load(args.checkpoint)
    levels = list(model.backbone.channels)
    level = args.level or levels[-1]
    if level not in levels:
        raise unknown("level", level, levels, "--level")
    log.setup()
    folder = Path(args.output)
    for number, image in enumerate(track(images, "pictures")):
        taken = any(image.stem == other.stem for other in images[:number])
        out = folder / f"{image.stem}{f'_{number}' if taken else ''}.png"
        picture(model, image, out, args.size, args.seed, level)
        if model.cfg.VIEWS.LOCAL_CROPS:
            from .show_search import search_picture

            search_picture(model, image, out.with_stem(f"{out.stem}_search"), args.seed, level)
    logging.getLogger("densessl").info("wrote %d pictures to %s", len(images), folder)
    return 0


def _require_readable(image: Path) -> None:
    from .views.crop import decode

    if not image.is_file():
        raise InputError(f"{image}: no such image")
    try:
        decode(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{image} cannot be read as an image: {error}") from None


def _parser() -> Parser:
    parser = Parser(prog="densessl show", description=main.__doc__)
    parser.add_argument("checkpoint", metavar="CKPT", help="a checkpoint of densessl pretrain")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("-o", "--output", default="pictures", metavar="DIR")
    parser.add_argument("--size", type=int, help="side of a view (default: as in the pretraining)")
    parser.add_argument("--seed", type=int, default=0, help="of the two views")
    parser.add_argument("--level", help="whose features, as layer3 or block8 (default: the last)")
    return parser


@dataclass
class Pretrained:
    """A backbone in evaluation mode, its method's name, options and normalisation."""

    backbone: object  # nn.Module
    method: str
    iteration: int
    cfg: object  # CfgNode
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load(path: str) -> Pretrained:
    """The backbone of a checkpoint of ``densessl pretrain``; InputError for any other file."""
    import pickle

    import torch
    import yaml

    from . import config
    from .backbones import build_backbone

    if not Path(path).is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is not a checkpoint of densessl pretrain: {reason}") from None
    needed = ("backbone", "config", "normalization")
    if missing := [key for key in needed if not isinstance(saved, dict) or key not in saved]:
        raise InputError(
            f"{path} is not a checkpoint of densessl pretrain: it has no '{missing[0]}'"
        )
    cfg = config.defaults()
    config.merge(cfg, yaml.safe_load(saved["config"]), f"the config in {path}")
    backbone = build_backbone(cfg.BACKBONE.NAME, norm="BN")
    backbone.load_state_dict(saved["backbone"])
    norm = saved["normalization"]
    return Pretrained(
        backbone=backbone.eval(),
        method=saved.get("method", cfg.METHOD.NAME),
        iteration=saved.get("iteration", 0),
        cfg=cfg,
        mean=tuple(norm["mean"]),
        std=tuple(norm["std"]),
    )


def views_of(model: Pretrained, image: Path, size: int, seed: int, local: bool = False):
    """Views (B = 1) of the image by the checkpoint's recipe: two global ones, and the local."""
    from .views import ImageSource, ViewDataset, apply_photometric, build_recipes, collate

    source = ImageSource(image.parent, [image.name], str(image))
    global_views, local_views = build_recipes(model.cfg.VIEWS)
    dataset = ViewDataset(
        *(source, global_views, size, seed, local_views if local else ()),
        local_size=model.cfg.VIEWS.LOCAL_SIZE,
    )
    return apply_photometric(collate([dataset[(0, 0)]]), "cpu", model.mean, model.std)


def picture(
    model: Pretrained, image: Path, out: Path, size: int | None, seed: int, level: str
) -> None:
    """Write one PNG for one image; the features are those of ``level`` on both views."""
    import torch

    from . import correspondence

    views = views_of(model, image, size or model.cfg.VIEWS.SIZE, seed)
    with torch.no_grad():
        features = [model.backbone(view.image)[level] for view in views]  # [1, C, h, w]
    options = model.cfg.SETSIM
    attention = [correspondence.attention(each, options.STATISTIC)[0] for each in features]
    sets = [
        correspondence.salient(each, options.THRESHOLD, options.STATISTIC)[0] for each in features
    ]
    grid = tuple(features[0].shape[-2:])
    threshold = options.GEOMETRY_THRESHOLD or 0.5
    geometric = correspondence.geometric(*views, grid, threshold)[0]  # bool [N, N]
    nearest = correspondence.nearest(*features)[0]  # long [N]
    _draw(model, image, out, views, grid, attention, sets, geometric, nearest)


def _draw(model, image, out, views, grid, attention, sets, geometric, nearest) -> None:
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 11), layout="constrained")
    figure.suptitle(
        f"{image.name}   ·   {model.method}, {model.iteration} steps, {grid[0]} × {grid[1]} "
        "positions",
        fontsize=13,
    )
    place = figure.add_gridspec(3, 4)
    pixels = [pixels_of(view, model) for view in views]
    _source(figure.add_subplot(place[0, :2]), image, views)
    for k in range(2):
        flipped = ", flipped" if bool(views[k].flip[0]) else ""
        axes = figure.add_subplot(place[0, 2 + k])
        show_pixels(axes, pixels[k], f"view {k + 1}{flipped}", COLOURS[k])
        axes = figure.add_subplot(place[1, k])
        draw_attention(axes, pixels[k], attention[k].reshape(grid), f"attention, view {k + 1}")
        axes = figure.add_subplot(place[1, 2 + k])
        title = f"salient set, view {k + 1}: {int(sets[k].sum())} of {sets[k].numel()}"
        _set(axes, pixels[k], sets[k].reshape(grid), title)
    pairs = geometric.nonzero().tolist()
    axes = figure.add_subplot(place[2, :2])
    title = f"geometric matches: {len(pairs)} pairs" if pairs else "no geometric match: no overlap"
    position = colormaps["turbo"].resampled(len(nearest))
    _matches(axes, pixels, grid, pairs, [position(query) for query, _ in pairs], title)
    pairs = list(enumerate(nearest.tolist()))
    agree = [bool(geometric[query, key]) for query, key in pairs]
    axes = figure.add_subplot(place[2, 2:])
    title = f"nearest neighbours: {sum(agree)} of {len(pairs)} are geometric matches (green)"
    _matches(axes, pixels, grid, pairs, ["#2a9d3a" if ok else "#d1495b" for ok in agree], title)
    canvas = FigureCanvasAgg(figure)
    write_atomic(out, lambda stream: canvas.print_figure(stream, format="png", dpi=110))


def pixels_of(view, model: Pretrained):
    """The view as people see it: [H, W, 3] in 0–1."""
    import torch

    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (model.mean, model.std))
    return (view.image[0] * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()


def show_pixels(axes, pixels, title: str, colour: str | None = None) -> None:
    axes.imshow(pixels, interpolation="bilinear")
    axes.set_title(title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(colour is not None)
        spine.set(color=colour, linewidth=3)


def _source(axes, image: Path, views) -> None:
    from matplotlib.patches import Rectangle

    from .views.crop import decode

    show_pixels(axes, decode(image), "the image and its two views")
    for k, view in enumerate(views):
        x1, y1, x2, y2 = (float(edge) - 0.5 for edge in view.box[0])  # a pixel's centre is at 0
        box = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=COLOURS[k], linewidth=3)
        axes.add_patch(box)
        axes.text(
            x1, y1, f" {k + 1} ", backgroundcolor=COLOURS[k], fontsize=9, va="top", clip_on=True
        )


def draw_attention(axes, pixels, attention, title: str) -> None:
    height, width = pixels.shape[:2]
    show_pixels(axes, pixels, title)
    axes.imshow(
        attention.numpy(),
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        cmap="inferno",
        alpha=0.6,
        vmin=0,
        vmax=1,
        interpolation="bilinear",
    )


def _set(axes, pixels, members, title: str) -> None:
    """The view with all but the members' cells darkened."""
    import torch

    height, width = pixels.shape[:2]
    show_pixels(axes, pixels, title)
    shade = torch.zeros(*members.shape, 4)
    shade[..., 3] = 0.7 * (~members).float()
    axes.imshow(
        shade.numpy(), extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest"
    )


def _matches(axes, pixels, grid, pairs, colours, title: str) -> None:
    """Lines between the centres of matched cells of the two views, side by side.

    The second view lies lower, so that the lines of one row fan out.
    """
    import numpy as np

    height, width = pixels[0].shape[:2]
    right, down = width + width // 8, height // 6
    canvas = np.ones((height + down, right + width, 3), dtype=np.float32)
    canvas[:height, :width], canvas[down:, right:] = pixels
    show_pixels(axes, canvas, title)
    for (query, key), colour in zip(pairs, colours, strict=True):
        (x1, y1), (x2, y2) = (_centre(each, grid, height, width) for each in (query, key))
        axes.plot((x1, x2 + right), (y1, y2 + down), "o-", color=colour, lw=1, ms=2.5, alpha=0.8)


def _centre(position: int, grid, height: int, width: int) -> tuple[float, float]:
    row, column = divmod(position, grid[1])
    return (column + 0.5) * width / grid[1] - 0.5, (row + 0.5) * height / grid[0] - 0.5
