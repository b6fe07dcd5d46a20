import re
from pathlib import Path

from smartgrid_ops.settings import READERS

PAGE = Path(__file__).parents[2] / "docs" / "operations" / "settings.md"


def test_the_page_of_settings_names_each_of_them_and_no_other() -> None:
    assert set(re.findall(r"`(SMARTGRID_[A-Z_]+)`", PAGE.read_text())) == set(READERS)
