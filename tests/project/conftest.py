"""What the tests of the project share: its files, and the modules that setup.py builds with."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "csrc"))
