import sys
from pathlib import Path

# The tests of a folder share a module of helpers; pytest imports each file on its own.
sys.path.insert(0, str(Path(__file__).parent))

from places_world import dsn, register

__all__ = ["dsn", "register"]
