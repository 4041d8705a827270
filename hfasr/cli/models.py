"""The verbs of models: import-nemo."""

from pathlib import Path
from typing import Annotated

import typer

from hfasr.cli.app import app


@app.command()
def import_nemo(
    file: Annotated[Path, typer.Argument(help="A .nemo archive of a QuartzNet or Citrinet CTC model.")],
    folder: Annotated[Path, typer.Argument(help="Where to write the checkpoint.")],
    framing: Annotated[
        str | None,
        typer.Option(
            metavar="current|nemo24",
            help="How the waveform is cut: as NeMo 2.5 and newer, or as older ones; by the version that saved the archive when left out.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make a NeMo checkpoint a Transformers checkpoint."""
    from hfasr.models.nemo import import_nemo
    from hfasr.models.nemo_archive import shown

    checkpoint = import_nemo(file, folder, framing=framing)
    extractor, labels = checkpoint.feature_extractor, checkpoint.labels
    parameters = sum(tensor.numel() for name, tensor in checkpoint.weights.items() if ".running_" not in name and ".num_" not in name)
    window, hop = (1000 * samples / extractor.sampling_rate for samples in (extractor.window_length, extractor.hop_length))
    named = ("(space)" if label == " " else label if label.isprintable() and len(label) < 20 else shown(label) for label in labels[:50])
    symbols = " ".join(named) + (" ..." if len(labels) > 50 else "")
    print(f"class       {type(checkpoint.config).__name__.removesuffix('Config')}, from {shown(checkpoint.target)}")
    print(f"parameters  {parameters:,}")
    print(f"symbols     {len(labels)} and the blank: {symbols}")
    print(f"front end   {extractor.feature_size} mel bins, {window:g} ms every {hop:g} ms, {extractor.sampling_rate:,} Hz")
    print(f"framing     {extractor.framing}, {checkpoint.framing_reason}")
    for remark in checkpoint.remarks:
        print(f"note        {remark}")
    print(f"written: {folder}")
