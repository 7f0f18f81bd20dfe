"""The demonstration: embedded checkpoint -> ONNX -> masks -> check -> short benchmark, with pictures of each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dlink.accuracy.agreement import compare
from dlink.accuracy.gates import GateLimits, Verdict
from dlink.accuracy.iou import Overlap
from dlink.accuracy.report.evidence import Evidence, difference
from dlink.accuracy.report.page import About, write_report
from dlink.accuracy.road_graphs.connectivity import connectivity_with
from dlink.bench.authors import eight_view_sum
from dlink.bench.latency import latency, ratio
from dlink.bench.machine import machine
from dlink.export.export import export
from dlink.imagery.images import find_tiles, read_image, write_image
from dlink.imagery.pictures import paint
from dlink.nets import torch_backend
from dlink.nets.checkpoint import read_checkpoint
from dlink.nets.embedded import EMBEDDED, GSD_M
from dlink.runtime import CheckFailed, Segmenter, Spec, open_model
from dlink.scenes import scene, with_roads

CHECKED = 4  # generated tiles of 512 px
COLOURS = ((0, 158, 115), (230, 159, 0), (213, 94, 0))  # Okabe and Ito's green, orange, vermilion


@dataclass
class Demo:
    """Fills a folder, and prints each step."""

    out: Path
    echo: Callable[[str], None]

    def run(self, image: Path | None, size: int, seed: int) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        model = self.export()
        with open_model(model) as segmenter:
            self.segment(segmenter, size, seed)
            if image:
                self.segment_own(segmenter, image)
            self.check(segmenter)
            self.time(segmenter)
        self.next_steps(model)

    def export(self) -> Path:
        checkpoint = read_checkpoint(EMBEDDED)
        path = self.out / "roads.onnx"
        spec = Spec(
            arch=checkpoint.arch,
            width=checkpoint.width,
            precision="fp16",
            gsd_m=GSD_M,
            checkpoint_sha256=checkpoint.sha256,
        )
        proof = export(checkpoint, path, spec, [s.image for s in with_roads(2, spec.tile, seed=1_000_000)])
        self.echo(f"1. Exported {EMBEDDED.name} ({checkpoint.arch}, width {checkpoint.width:g}) to {path}, FP16;")
        self.echo(f"   its masks agree with PyTorch's at IoU {proof.agreement:.4f} on {proof.tiles} generated tiles.")
        return path

    def segment(self, segmenter: Segmenter, size: int, seed: int) -> None:
        made = scene(seed, size)
        mask = segmenter.mask(made.image)
        overlap = Overlap()
        iou = overlap.add(mask > 0, made.mask > 0)
        pictures = {
            "scene.png": made.image,
            "label.png": made.mask,
            "mask.png": mask,
            "overlay.png": paint(made.image, mask),
            "agreement.png": difference(made.image, made.mask > 0, mask > 0, COLOURS),
        }
        for name, picture in pictures.items():
            write_image(self.out / name, picture)
        self.echo(
            f"2. Drew the roads of a generated {size} x {size} scene with eight views: IoU {iou:.3f} with its label."
        )
        self.echo(f"   {self.out}/scene.png, label.png, mask.png, overlay.png and agreement.png (green: both,")
        self.echo("   orange: only the network, red: only the label).")

    def segment_own(self, segmenter: Segmenter, image: Path) -> None:
        pixels = read_image(image)
        mask = segmenter.mask(pixels)
        write_image(self.out / f"{image.stem}_mask.png", mask)
        write_image(self.out / f"{image.stem}_overlay.png", paint(pixels, mask))
        self.echo(
            f"   And of {image}: {(mask > 0).mean():.1%} is road; {self.out}/{image.stem}_mask.png, _overlay.png."
        )

    def check(self, segmenter: Segmenter) -> None:
        folder = self.out / "tiles"
        folder.mkdir(exist_ok=True)
        for i, made in enumerate(with_roads(CHECKED, 512, seed=2_000_000)):
            write_image(folder / f"{i}_sat.png", made.image)
            write_image(folder / f"{i}_mask.png", made.mask)
        tiles, evidence, connectivity = (
            find_tiles(folder)[:CHECKED],
            Evidence(),
            partial(connectivity_with, gsd_m=GSD_M),
        )
        with Segmenter(torch_backend.open(EMBEDDED, segmenter.spec)) as reference:
            found = compare(segmenter, reference, tiles, views=(1,), connectivity=connectivity, evidence=evidence)
        verdict = Verdict(found, GateLimits.of(segmenter.spec.precision))
        about = About(model="roads.onnx", reference=EMBEDDED.name, tiles="generated scenes", facts=machine())
        write_report(self.out / "report.html", verdict, evidence, about)
        if why := verdict.why:
            raise CheckFailed(f"{self.out}: the file does not draw PyTorch's roads: {'; '.join(why)}")
        s = found.settings[0]
        assert s.candidate and s.reference
        self.echo(
            f"3. Checked it against PyTorch on {found.tiles} labelled tiles, one view: masks agree at "
            f"{s.agreement:.4f},"
        )
        self.echo(f"   IoU with the labels {s.candidate.pooled:.4f}, PyTorch's {s.reference.pooled:.4f}: same roads;")
        self.echo(f"   {self.out}/report.html shows it with charts and pictures.")

    def time(self, segmenter: Segmenter) -> None:
        image = scene(1_000_000, segmenter.spec.tile).image
        rows = {n: latency(segmenter, [image], n, seconds=2) for n in (1, 8)}
        net = read_checkpoint(EMBEDDED).net
        r = ratio(lambda: segmenter.mask(image, 8), lambda: eight_view_sum(net, image), "PyTorch", rounds=1)
        side = segmenter.spec.tile
        self.echo(f"4. {segmenter.backend.engine}: a {side} x {side} tile in {rows[1].p50_ms:.0f} ms with one view,")
        self.echo(
            f"   {rows[8].p50_ms:.0f} ms with eight, {r.median:.1f} times as fast as the authors' PyTorch procedure."
        )

    def next_steps(self, model: Path) -> None:
        self.echo("\nNext, with your own checkpoint and pictures:")
        self.echo("   dlink-export roads.th roads.onnx --precision fp16")
        self.echo("   dlink-check roads.onnx tiles/ --against roads.th")
        self.echo("   dlink-segment roads.onnx pictures/ -o masks/ --overlay")
        self.echo(f"Or try this network: dlink-segment {model} YOUR_PICTURE.jpg -o mask.png")
