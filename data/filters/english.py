"""English words that are cut, or kept whole, against the rules: contractions, abbreviations, emoticons.

The list follows the exceptions of spaCy's English tokenizer (spacy/lang/en/tokenizer_exceptions.py),
stated by the rules that generate it.
"""

import functools
from collections.abc import Iterable, Iterator

_PRONOUNS = "i you he she it we they"
_QUESTION_WORDS = "who what when where why how there that this these those"
_NEGATED_WITH_HAVE = "ca could do does did had may might must need ought sha should wo would"
_NEGATED = "ai are is was were have has dare"
_MODALS = "could might must should would"
_DROPPED_G = "doin goin nothin nuthin ol somethin lovin havin"
_ODD_CUTS = """
    y'|all y|all how|'d|'y How|'d|'y not|'ve not|ve Not|'ve Not|ve can|not Can|not gon|na Gon|na got|ta Got|ta
    let|'s Let|'s c'm|on C'm|on
"""
_NOT_CONTRACTIONS = "Ill ill Its its Hell hell Shell shell Shed shed were Were Well well Whore whore"
_ABBREVIATIONS = """
    'S 's ‘S ‘s and/or w/o 're 'Cause 'cause 'cos 'Cos 'coz 'Coz 'cuz 'Cuz 'bout ma'am Ma'am o'clock
    O'clock em 'em ll 'll nuff 'nuff 'd ' '' \\") \\t \\n <space> C++ — Mt. Ak. Ala. Apr. Ariz. Ark. Aug.
    Calif. Colo. Conn. Dec. Del. Feb. Fla. Ga. Ia. Id. Ill. Ind. Jan. Jul. Jun. Kan. Kans. Ky. La. Mar.
    Mass. Mich. Minn. Miss. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Nov. Oct. Okla. Ore. Pa. S.C.
    Sep. Sept. Tenn. Va. Wash. Wis. a.m. Adm. Bros. co. Co. Corp. D.C. Dr. e.g. E.g. E.G. Gen. Gov. i.e.
    I.e. I.E. Inc. Jr. Ltd. Md. Messrs. Mo. Mont. Mr. Mrs. Ms. p.m. Ph.D. Prof. Rep. Rev. Sen. St. vs.
    v.s. a. b. c. d. e. f. g. h. i. j. k. l. m. n. o. p. q. r. s. t. u. v. w. x. y. z. ä. ö. ü.
"""
_EMOTICONS = r"""
    :) :-) :)) :-)) :))) :-))) (: (-: =) (= :] :-] [: [-: [= =] :o) (o: :} :-} 8) 8-) (-8 ;) ;-) (; (-; :(
    :-( :(( :-(( :((( :-((( ): )-: =( >:( :') :'-) :'( :'-( :/ :-/ =/ =| :| :-| ]= =[ :1 :P :-P :p :-p :O
    :-O :o :-o :0 :-0 :() >:o :* :-* :3 :-3 =3 :> :-> :X :-X :x :-x :D :-D ;D ;-D =D xD XD xDD XDD 8D 8-D
    ^_^ ^__^ ^___^ >.< >.> <.< ._. ;_; -_- -__- v.v V.V v_v V_V o_o o_O O_o O_O 0_o o_0 0_0 o.O O.o O.O
    o.o 0.0 o.0 0.o @_@ <3 <33 <333 </3 (^_^) (-_-) (._.) (>_<) (*_*) (¬_¬) ಠ_ಠ ಠ︵ಠ (ಠ_ಠ) ¯\(ツ)/¯
    (╯°□°）╯︵┻━┻ ><(((*>
"""
# Peeled off the end of a word where a digit stands before.
UNITS = """
    km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s km/h kmh
    mph hPa Pa mbar mb MB kb KB gb GB tb TB T G M K % км км² км³ м м² м³ дм дм² дм³ см см² см³ мм мм² мм³
    нм кг г мг м/с км/ч кПа Па мбар Кб КБ кб Мб МБ мб Гб ГБ гб Тб ТБ тб
"""


@functools.cache
def exceptional_words() -> dict[str, tuple[str, ...]]:
    """String -> the words it is cut into."""
    words: dict[str, tuple[str, ...]] = {}
    for pieces in _contractions():
        words["".join(pieces)] = tuple(pieces)
    for string in _NOT_CONTRACTIONS.split():
        words.pop(string, None)
    for string in (*_ABBREVIATIONS.split(), *_EMOTICONS.split(), *_dropped_g()):
        words[string] = (string,)
    for unit in "cfkCFK":
        words[f"°{unit}."] = ("°", unit, ".")
    for string, cut in list(words.items()):
        words[string.replace("'", "’")] = tuple(piece.replace("'", "’") for piece in cut)
    return words


def _contractions() -> Iterator[list[str]]:
    for word in _both_cases(_PRONOUNS):
        yield from _endings(word, "'ll", "ll", "'ll|'ve", "ll|ve", "'d", "d", "'d|'ve", "d|ve")
    for word in _both_cases("i"):
        yield from _endings(word, "'m", "m", "'m|a", "m|a")
    for word in _both_cases("i you we they"):
        yield from _endings(word, "'ve", "ve")
    for word in _both_cases("you we they"):
        yield from _endings(word, "'re", "re")
    for word in _both_cases("he she it"):
        yield from _endings(word, "'s", "s")
    for word in _both_cases(_QUESTION_WORDS):
        yield from _endings(word, "'ll", "ll", "'ll|'ve", "ll|ve", "'d", "d", "'d|'ve", "d|ve")
        if word.lower() not in ("these", "those"):
            yield from _endings(word, "'s", "s")
        if word.lower() not in ("that", "this"):
            yield from _endings(word, "'re", "re", "'ve", "ve")
    for word in _both_cases(_NEGATED_WITH_HAVE):
        yield from _endings(word, "n't", "nt", "n't|'ve", "nt|ve")
    for word in _both_cases(_NEGATED):
        yield from _endings(word, "n't", "nt")
    for word in _both_cases(_MODALS):
        yield from _endings(word, "'ve", "ve")
    for hour in range(1, 13):
        yield from _endings(str(hour), "a.m.", "am", "p.m.", "pm")
    for cut in _ODD_CUTS.split():
        yield cut.split("|")


def _endings(word: str, *endings: str) -> Iterable[list[str]]:
    return ([word, *ending.split("|")] for ending in endings)


def _both_cases(words: str) -> list[str]:
    return [form for word in words.split() for form in (word, word.title())]


def _dropped_g() -> list[str]:
    return [form + end for form in _both_cases(_DROPPED_G) for end in ("", "'")]
