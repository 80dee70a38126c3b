# SPDX-License-Identifier: Apache-2.0
"""Train the preview model that ships.

    python tools/train_preview.py --out build/preview --steps 12000
    python tools/train_preview.py --out build/preview --minutes 9 --device cuda --workers 14

It goes on from the checkpoint in the folder if there is one, writes another every two minutes, and
can be stopped at any time. The same commands give the same clips and draws on every machine.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

import torch

from gencomp_server.training.preview_training import PreviewSettings, Rhythm, train_preview


def main() -> int:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    plain, usual = PreviewSettings(), Rhythm()
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to fill")
    parser.add_argument("--steps", type=int, default=plain.steps, help="of the whole training")
    parser.add_argument("--batch", type=int, default=plain.batch, help="clips of a step")
    parser.add_argument("--rate", type=float, default=plain.rate, help="learning rate")
    parser.add_argument(
        "--fall", type=float, default=plain.fall, help="share of the steps in which the rate falls"
    )
    parser.add_argument("--seed", type=int, default=plain.seed, help="0 to 7")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after so long; 0: never")
    parser.add_argument("--stop-at", type=int, default=0, metavar="STEP", help="0: at the last")
    parser.add_argument("--validate-every", type=int, default=usual.validate_every, metavar="N")
    parser.add_argument("--workers", type=int, default=1, help="processes that make clips")
    parser.add_argument("--threads", type=int, default=2, help="of the training on a processor")
    parser.add_argument("--device", default="cpu", help="cpu, cuda")
    parser.add_argument("--bf16", action="store_true", help="compute forwards in bfloat16")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(
        True
    )  # the optimiser's means come to that, and take three times as long
    asked = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: asked.set())
    settings = PreviewSettings(
        steps=args.steps, batch=args.batch, rate=args.rate, fall=args.fall, seed=args.seed
    )
    rhythm = Rhythm(
        minutes=args.minutes,
        stop_at=args.stop_at,
        validate_every=args.validate_every,
        workers=args.workers,
        device=args.device,
        bf16=args.bf16,
        stopped=asked.is_set,
    )
    done = train_preview(settings, args.out, rhythm, lambda event: print(event, flush=True))
    print(f"{done} of {settings.steps} steps are done; weights are in {args.out}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
