"""The mask of a raster: which band or flag says where there is data. Needs rasterio.

GDAL takes a band that is declared alpha as the mask: by its value where it is of 8 bits, by its share of the type's
greatest value where it is of 16, and not at all where it is of other types. Here it is the mask whatever its type, and
any value above 0 is data. A band that is read as a plane of the picture is no mask, though it is declared alpha.
"""

from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.dtypes import dtype_rev, typename_fwd
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window as Box

BYTE = "uint8"
FULL, PARTLY = np.uint8(255), np.uint8(128)


@dataclass(frozen=True)
class Mask:
    """What says where a raster has data."""

    there: bool  # False: nothing does, all is data
    alpha: int = 0  # the number of an alpha band; 0: none
    by_gdal: bool = True  # whether GDAL's mask is right as it is
    spare: bool = False  # whether a band that GDAL takes for the mask is a plane of the picture

    @classmethod
    def of(cls, dataset: Any, planes: Collection[int]) -> "Mask":
        """The mask of an open raster, of which the bands `planes` are read as a picture."""
        alphas = [i for i, role in enumerate(dataset.colorinterp, 1) if role == ColorInterp.alpha]
        if alphas and alphas[0] in planes:
            return cls(False, spare=True)
        flagged = any(MaskFlags.all_valid not in flags for flags in dataset.mask_flag_enums)
        if not alphas:
            return cls(flagged)
        return cls(True, alphas[0], by_gdal=flagged and dataset.dtypes[alphas[0] - 1] == BYTE)

    def read(self, dataset: Any, shape: tuple[int, int], box: Box | None = None) -> NDArray[Any]:
        """The mask in a window (None: all), (H, W): 0 where there is no data, 255 where an alpha band is full."""
        if not self.there:
            return np.full(shape, FULL, np.uint8)
        if self.by_gdal:
            found: NDArray[Any] = dataset.dataset_mask(window=box, out_shape=shape)
            return found
        values = dataset.read(self.alpha, window=box, out_shape=shape)
        return np.asarray(np.where(values > 0, np.where(values == values.max(), FULL, PARTLY), 0), np.uint8)

    def for_warping(self, dataset: Any, stack: ExitStack) -> Any:
        """The raster so that GDAL's warper sees this mask, and no other."""
        if self.by_gdal and not self.spare:
            return dataset
        source = f"<SourceFilename>{escape(dataset.name)}</SourceFilename>"
        source += '<OpenOptions><OOI key="OVERVIEW_LEVEL">NONE</OOI></OpenOptions>'
        bands = "".join(
            f'<VRTRasterBand dataType="{typename_fwd[dtype_rev[dtype]]}" band="{i}">'
            f"<ColorInterp>Undefined</ColorInterp><SimpleSource>{source}<SourceBand>{i}</SourceBand></SimpleSource></VRTRasterBand>"
            for i, dtype in enumerate(dataset.dtypes, 1)
        )
        mask = (
            f'<MaskBand><VRTRasterBand dataType="Byte"><ComplexSource>{source}<SourceBand>{self.alpha}</SourceBand>'
            f"<LUT>0:0,{np.finfo(np.float32).tiny}:{FULL}</LUT></ComplexSource></VRTRasterBand></MaskBand>"
        )
        size = f'rasterXSize="{dataset.width}" rasterYSize="{dataset.height}"'
        return stack.enter_context(
            rasterio.open(f"<VRTDataset {size}>{bands}{mask if self.alpha else ''}</VRTDataset>")
        )
