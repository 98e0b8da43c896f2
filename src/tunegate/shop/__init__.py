"""The shopping-assistant data that tunegate ships: training dialogues, held-out suites and simulated shoppers.

All of it is invented for this project and made by `python -m tunegate.shop.generate` from the catalogue and the
templates in DATA. Nothing here knows of models, stores or servers.
"""

from pathlib import Path

DATA = Path(__file__).parent / "data"
