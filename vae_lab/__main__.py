"""`python -m vae_lab` is `vae-lab`."""

import sys

from vae_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
