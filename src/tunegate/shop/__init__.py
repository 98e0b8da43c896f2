"""The shopping-assistant data that tunegate ships: training dialogues, held-out suites and simulated shoppers.

All of it is invented for this project and made by `python -m tunegate.shop.generate` from the catalogue and the
templates in DATA.
"""

from pathlib import Path

DATA = Path(__file__).parent / "data"
