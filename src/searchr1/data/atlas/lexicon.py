"""The made-up words of the atlas, fixed for all seeds.

A world is a new combination of these words, never a new word: a small policy can have one token for each of them and
still meet only entities it has never seen. The words avoid English endings, so a stemmer leaves them alone.
"""

from __future__ import annotations

import zlib

_ONSETS = ("B", "D", "F", "G", "H", "J", "K", "L", "M", "N", "P", "R", "S", "T", "V", "Z", "Br", "Dr", "Gr", "Kr", "Tr")
_MIDDLES = ("ab", "ad", "ag", "al", "am", "an", "ar", "av", "el", "em", "en", "er", "ev", "ib", "id", "il", "im", "in",
            "ir", "ob", "od", "ol", "om", "on", "or", "ov", "ub", "ud", "ul", "um", "un", "ur")  # fmt: skip
_FIRST_ENDINGS = ("a", "o", "an", "or", "im", "u")
_SECOND_ENDINGS = ("dak", "lok", "mun", "nak", "rith", "tok", "vax", "zol", "gar", "bran")


def _choose(words: list[str], count: int) -> tuple[str, ...]:
    """``count`` words spread evenly over the candidates by checksum: stable on every machine and version."""
    return tuple(sorted(sorted(set(words), key=lambda word: zlib.crc32(word.encode()))[:count]))


FIRST_WORDS = _choose([o + m + e for o in _ONSETS for m in _MIDDLES for e in _FIRST_ENDINGS], 160)
"""Words that open a name."""
SECOND_WORDS = _choose([o + m + e for o in _ONSETS for m in _MIDDLES for e in _SECOND_ENDINGS], 160)
"""Words that close a name."""

PROFESSIONS = ("baker", "singer", "lawyer", "pilot", "farmer", "painter", "dentist", "chemist", "sailor", "tailor",
               "miner", "poet", "judge", "nurse", "cook", "driver", "guard", "hunter", "weaver", "printer",
               "surgeon", "banker", "actor", "dancer", "potter", "mason", "diver", "clerk", "tutor", "barber",
               "gardener", "carpenter", "jeweller", "librarian", "mechanic", "architect", "plumber", "cellist",
               "botanist", "historian")  # fmt: skip
GOODS = ("clocks", "boats", "carpets", "lamps", "violins", "bicycles", "cheese", "paper", "glass", "candles", "boots",
         "ropes", "tiles", "knives", "pumps", "engines", "chairs", "hats", "drums", "coats", "kettles", "pencils",
         "ladders", "mirrors", "cameras", "tractors", "pianos", "gloves", "toys", "soap", "honey", "salt", "bells",
         "bricks", "barrels", "maps", "wheels", "stoves", "locks", "nets")  # fmt: skip
GENRES = ("thriller", "comedy", "tragedy", "romance", "satire", "mystery", "memoir", "fable", "western", "epic",
          "farce", "ballad", "diary", "parody", "saga", "chronicle", "essay", "drama", "legend", "novella",
          "manual", "travelogue", "biography", "cookbook", "guidebook", "anthology", "almanac", "hymnal", "sermon",
          "elegy", "sonnet", "libretto", "screenplay", "pamphlet", "treatise", "dialogue", "primer", "atlas",
          "dictionary", "catalogue")  # fmt: skip
FIELDS = ("optics", "botany", "geology", "algebra", "anatomy", "acoustics", "genetics", "logic", "zoology", "ecology",
          "robotics", "mechanics", "astronomy", "geometry", "ethics", "economics", "linguistics", "hydraulics",
          "metallurgy", "statistics", "medicine", "archaeology", "philosophy", "chemistry", "meteorology",
          "virology", "pharmacy", "forestry", "topology", "theology", "ceramics", "phonetics", "dynamics",
          "magnetism", "mycology", "cartography", "nutrition", "psychology", "sociology", "surgery")  # fmt: skip
YEARS = tuple(str(year) for year in range(1850, 1950))
