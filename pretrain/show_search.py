"""The picture of SCFS's Figure 3: where in a global view the local crops find themselves."""

from pathlib import Path

from console.files import write_atomic

from .show import COLOURS, Pretrained, draw_attention, pixels_of, show_pixels, views_of

COLUMNS = 5


def search_picture(model: Pretrained, image: Path, out: Path, seed: int, level: str) -> None:
    """Write one PNG: the global view, its mean attention, and every local crop with its own.

    The attention of a crop is the cosine of its mean feature with every position of the global
    view, at ``level`` (SCFS eq. 5 and 6), drawn from the least to the largest of all crops.
    """
    import torch
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from .correspondence import crop_in_view, soft_attention

    first, _, *crops = views_of(model, image, model.cfg.VIEWS.SIZE, seed, local=True)
    with torch.no_grad():
        F = model.backbone(first.image)[level]  # [1, C, h, w]
        queries = [model.backbone(crop.image)[level].mean((2, 3)) for crop in crops]
    A = soft_attention(torch.stack(queries, 1), F)[0]  # [N, h w]
    scaled = (A - A.min()) / (A.max() - A.min()).clamp_min(1e-12)
    maps = scaled.view(-1, *F.shape[2:])

    rows = 1 + 2 * -(-len(crops) // COLUMNS)
    figure = Figure(figsize=(2.6 * COLUMNS, 2.8 * rows), layout="constrained")
    figure.suptitle(
        f"{image.name}   ·   {model.method}, {model.iteration} steps   ·   search at {level}: "
        f"cosine from {A.min():.2f} (dark) to {A.max():.2f} (bright)",
        fontsize=13,
    )
    place = figure.add_gridspec(rows, COLUMNS)
    whole = pixels_of(first, model)
    show_pixels(figure.add_subplot(place[0, 0]), whole, "global view", COLOURS[0])
    axes = figure.add_subplot(place[0, 1])
    draw_attention(axes, whole, maps.mean(0), f"mean of {len(crops)} searches")
    for number, crop in enumerate(crops):
        row, column = 1 + 2 * (number // COLUMNS), number % COLUMNS
        axes = figure.add_subplot(place[row, column])
        show_pixels(axes, pixels_of(crop, model), f"local crop {number + 1}", COLOURS[1])
        axes = figure.add_subplot(place[row + 1, column])
        draw_attention(axes, whole, maps[number], "what it finds")
        box, share = crop_in_view(crop, first)
        if share > 0:
            _outline(axes, box[0].tolist())
    canvas = FigureCanvasAgg(figure)
    write_atomic(out, lambda stream: canvas.print_figure(stream, format="png", dpi=100))


def _outline(axes, box: list[float]) -> None:
    """Where the crop really lies, as far as the view shows it."""
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = (edge - 0.5 for edge in box)  # a pixel's centre is at 0
    axes.add_patch(
        Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=COLOURS[1], linewidth=2)
    )
