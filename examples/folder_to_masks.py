"""A folder of pictures becomes a folder of road masks, each with an overlay to look at.

    python examples/folder_to_masks.py roads.onnx pictures/ masks/

Needs pip install 'dlink[cpu]'. `dlink-segment` does the same and more: it keeps the place of a GeoTIFF, which is lost
here. Start from this program if pictures come from elsewhere, or if masks go elsewhere.
"""

import sys
from pathlib import Path

from dlink.imagery.images import read_image, write_image
from dlink.imagery.jobs import find_pictures
from dlink.imagery.pictures import paint
from dlink.runtime import DlinkError, Segmenter, open_model


def draw(model: Segmenter, picture: Path, out: Path) -> Path:
    """Write the mask of one picture, and the picture with its roads painted over it. Returns the mask's path."""
    image = read_image(picture)  # uint8 (H, W, 3) RGB; a damaged file is refused
    mask = model.mask(image)  # uint8 (H, W), 255 where there is road; any size, cut into tiles inside
    name = picture.stem.removesuffix("_sat")
    write_image(out / f"{name}_overlay.jpg", paint(image, mask))
    write_image(out / f"{name}_mask.png", mask)
    return out / f"{name}_mask.png"


def main(model_path: str, pictures: str, out: str) -> int:
    failed = 0
    Path(out).mkdir(parents=True, exist_ok=True)
    with open_model(model_path) as model:  # a second or less; one model serves all pictures
        for picture in find_pictures(Path(pictures)):
            # One bad picture does not stop the rest. All errors that dlink raises on purpose are a DlinkError, whose
            # message is one line that says what to do. Any other error is a bug, so it is not caught.
            try:
                print(draw(model, picture, Path(out)))
            except (DlinkError, OSError) as e:
                failed += 1
                print(f"Error: {e}", file=sys.stderr)
    return int(failed > 0)  # a script that calls this one sees that something is missing


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f"usage: {sys.argv[0]} MODEL PICTURES OUT")
    try:
        sys.exit(main(*sys.argv[1:]))
    except (DlinkError, OSError) as e:  # no model, or no pictures
        sys.exit(f"Error: {e}")
