"""The words of the board: what is looked through, and what is looked for. Pure.

Accents, case, ligatures, apostrophes, stop words and plurals go in one place, for the texts and
for the queries alike, so both meet whatever PostgreSQL the city runs: `vélos` and `velo` are the
same word. The French stemmer of PostgreSQL does the rest (`réparer`, `réparations`).
"""

import unicodedata

QUERY_MAX = 200
QUERY_WORDS_MAX = 8
WORD_MAX = 40
# From here on a word may be spelled nearly so; shorter ones have too few letters to tell.
SIMILAR_FROM = 4

# Those of the French stemmer's own list, as they are without accents, and what people write around
# what they look for.
STOP_TEXT = """
    a ai aie aient aies ait ao as au aura aurai auraient aurais aurait auras aurez auriez aurions
    aurons auront aux avaient avais avait avec avez aviez avions avons ayant ayante ayantes ayants
    ayez ayons c ce ces d dans de des du elle en es est et etaient etais etait etant etante etantes
    etants ete etee etees etes etiez etions eu eue eues eumes eurent eus eusse eussent eusses
    eussiez eussions eut eutes eux fumes furent fus fusse fussent fusses fussiez fussions fut futes
    il ils j je l la le les leur leurs lui m ma mais me meme memes mes moi mon n ne nos notre nous
    on ont ou par pas pour qu que qui s sa se sera serai seraient serais serait seras serez seriez
    serions serons seront ses soient sois soit sommes son sont soyez soyons suis sur t ta te tes toi
    ton tu un une vos votre vous y
    cherche besoin propose offre
"""
STOP_WORDS = frozenset(STOP_TEXT.split())


def fold(text: str) -> str:
    """Lower case without accents; ligatures in full; a space for all but letters and digits."""
    text = text.casefold().replace("œ", "oe").replace("æ", "ae")
    plain = "".join(
        character
        for character in unicodedata.normalize("NFKD", text)
        if not unicodedata.combining(character)
    )
    return "".join(character if character.isalnum() else " " for character in plain.casefold())


def singular(word: str) -> str:
    """Without the mark of a plural. The stemmer leaves some (`vélos`), so it goes before."""
    return word[:-1] if len(word) > 3 and word[-1] in "sx" else word


def terms(text: str) -> list[str]:
    """The words of a text that say something, in their order, each once."""
    words = (word[:WORD_MAX] for word in fold(text).split() if word not in STOP_WORDS)
    return list(dict.fromkeys(singular(word) for word in words))


def query_terms(query: str) -> list[str]:
    """What is looked for; empty when a query says nothing (stop words, signs)."""
    return terms(query[:QUERY_MAX])[:QUERY_WORDS_MAX]


def needed(count: int) -> int:
    """How many of the words a hit must have: all of one or two, two thirds of more."""
    return count - count // 3
