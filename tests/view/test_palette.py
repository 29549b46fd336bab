import re
from pathlib import Path

from mce_notebook.declare.grid import Status
from mce_notebook.view.palette import STATUS

STYLE = Path(__file__).parents[2] / "labextension" / "style" / "view.css"


def test_pictures_have_the_colours_of_the_live_view():
    light = STYLE.read_text(encoding="utf-8").partition("{")[2].partition("}")[0]
    found = dict(re.findall(r"--mce-(\w+): (#[0-9a-f]{6});", light))
    assert {status.name.lower(): colour for status, colour in STATUS.items()}.items() <= found.items()
    assert set(STATUS) == set(Status)
