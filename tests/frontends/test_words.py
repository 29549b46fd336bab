import json

from scripts.words import FILE, words


def test_the_extension_knows_the_options_of_today():
    assert json.loads(FILE.read_text()) == words(), "run `python -m scripts.words`"
