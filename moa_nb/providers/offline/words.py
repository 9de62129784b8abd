"""Words as the algorithms compare them: which language, which words carry content, how alike two sentences are."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["cosine", "inverse_frequencies", "is_near_duplicate", "language", "marks", "terms"]

# The commonest function words, enough to tell the languages apart and to leave out of comparisons.
_STOP: Mapping[str, frozenset[str]] = {
    code: frozenset(words.split())
    for code, words in {
        "en": "a about above after again all also although am among an and any are as at be because been before being "
        "between both but by can cannot could did do does doing done during each either etc every few "
        "for from further "
        "get gets got had has have having he hence her here hers him his how however i if in into is it its itself "
        "just let like made make many may me might more most much must my of off on once one only onto or other our "
        "ours out over own per rather same shall she should since so some such than that the their theirs them then "
        "there therefore these they this those though through thus to too under until up upon us very via was we were "
        "what when where whether which while who whom whose why will with within would yet you your yours",
        "de": "aber alle als also am an auch auf aus bei bin bis da damit dann das dass dem den der des die dies diese "
        "dieser dieses doch du durch ein eine einem einen einer eines er es für haben hat ich ihr im in ist ja kann "
        "man mehr mit nach noch nur oder schon sehr sein sich sie sind so über um und uns unter vom von vor war waren "
        "was wenn werden wie wir wird wo wurde zu zum zur",
        "fr": "a afin ainsi alors après au aussi autre aux avant avec avoir c ce ces cet cette comme d dans de des deux "
        "donc dont du elle elles en encore entre est et été être eux fait il ils j je l la le les leur leurs lui m "
        "mais me même mes mon n nos notre nous on ont ou où par plus pour qu que qui s sa se ses si son sont sous sur "
        "ta te tout tous très tu un une vos votre vous y",
        "es": "a al algo ante antes así aun aunque cada como con cual cuando de del desde donde dos el ella ellos en "
        "entre era es esa ese eso esta está este esto fue ha han hasta hay la las le les lo los más me "
        "mi mientras muy "
        "o para pero por porque que qué se ser si sin sobre son su sus también te tiene todo tu un una uno y ya yo",
        "it": "a ai al alla alle anche che chi ci come con cui da dal dalla dei del della delle di dove due e è ed era "
        "fra gli ha hanno i il in io la le lei lo loro lui ma mi mia nel nella o per perché più qua quando quella "
        "questa questo se si sia sono su sua sul sulla suo tra tutto un una uno",
        "pt": "a ao aos as até com como da das de do dos e é ela ele eles em entre era essa esse esta está este eu foi "
        "há isso isto já la mais mas me mesmo muito na nas no nos o os ou para pela pelo por porque "
        "quando que quem se "
        "ser seu só sua são também te tem um uma você",
        "nl": "aan al als bij dan dat de deze die dit door een en er had heb hebben heeft het hij hoe ik in is je kan "
        "maar me meer met mijn na naar nog nu of om onder ook op over te tot uit van voor waar was wat "
        "we werd wij wordt "
        "worden zal ze zich zij zijn zo zou",
        "sv": "alla att av blev bli de dem den denna det detta du där efter ej eller en ett för från ha hade han har hon "
        "hur i jag kan kunde man med men mot mycket när någon nu och om oss på sig sin ska som till under upp ut var "
        "vara vi vid vilken än är över",
        "pl": "a aby ale bardzo był była było być co czy dla do gdy i ich ile jak jako jest jego jej już każdy kiedy "
        "która które który lub ma mi może na nad o od on ona oni oraz po pod przez przy się są ta tak "
        "także tam te tego "
        "tej to tu tym w we więc z za ze że",
        "tr": "acaba ama ancak bana bazı belki ben beni benim bir biz bu bunu çok çünkü da daha de diye en gibi hem hep "
        "her için ile ise kadar ki kim mı mi mu mü ne neden o olan olarak oldu onlar onun sen siz şey şu tüm var ve "
        "veya ya yani",
        "ru": "а без более бы был была были было быть в вам вас весь во вот все всех вы где да для до его ее если есть "
        "еще же за и из или им их к как ко когда кто ли мне мы на над нас него но о об он она они оно от очень по под "
        "при с со так также там то тоже только у уже что чтобы эта эти это этот я",
        "uk": "а або але без би був була були було в вже від він вона вони все для до же за з зі и і його її із їх й к "
        "коли ми на над нас о об от по при про та так також те ти то тому у це ці цей чи що щоб я як який",
    }.items()
}
_NEGATORS = frozenset(
    [
        "no",
        "not",
        "never",
        "none",
        "nor",
        "neither",
        "without",
        "cannot",
        "nicht",
        "kein",
        "keine",
        "nie",
        "pas",
        "jamais",
        "sans",
        "non",
        "ni",
        "nunca",
        "jamás",
        "sin",
        "mai",
        "senza",
        "não",
        "nem",
        "nunca",
        "sem",
        "niet",
        "geen",
        "nooit",
        "inte",
        "aldrig",
        "nie",
        "bez",
        "değil",
        "yok",
        "не",
        "нет",
        "ни",
        "никогда",
        "не",
        "ні",
    ]
)
_SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff\uff66-\uff9d]")),
    ("zh", re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")),
    ("ko", re.compile(r"[\u1100-\u11ff\uac00-\ud7a3]")),
    ("th", re.compile(r"[\u0e00-\u0e7f]")),
    ("lo", re.compile(r"[\u0e80-\u0eff]")),
    ("km", re.compile(r"[\u1780-\u17ff]")),
    ("my", re.compile(r"[\u1000-\u109f]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("he", re.compile(r"[\u0590-\u05ff]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
    ("bn", re.compile(r"[\u0980-\u09ff]")),
    ("ta", re.compile(r"[\u0b80-\u0bff]")),
    ("te", re.compile(r"[\u0c00-\u0c7f]")),
    ("ka", re.compile(r"[\u10a0-\u10ff]")),
    ("hy", re.compile(r"[\u0530-\u058f]")),
    ("am", re.compile(r"[\u1200-\u137f]")),
    ("el", re.compile(r"[\u0370-\u03ff]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("en", re.compile(r"[A-Za-z\u00c0-\u024f]")),
)
_UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    r"\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003fffd"
)
_TERM = re.compile(
    rf"(?P<unspaced>[{_UNSPACED}]+)"
    r"|(?P<number>\d+(?:[.,:]\d+)*)"
    rf"|(?P<word>[^\W\d_{_UNSPACED}][\w\u0300-\u036f\u0900-\u0dff]*(?:['’][^\W\d_]+)?)"
)
_LONGEST = 600
"""The most terms read of one sentence: what is longer is no sentence, and must not take long."""


def language(text: str) -> str:
    """Return the ISO 639-1 code of the language that ``text`` most likely is in, ``"en"`` when nothing tells.

    The script decides where it can (some kana make it Japanese), the commonest words among the
    languages written in Latin or Cyrillic letters. Only the first 4,000 characters are read.

    >>> language("Der Akku hält nicht lange und das ist schade."), language("电池能用两天。")
    ('de', 'zh')
    """
    sample = text[:4000]
    if sample.isascii():
        return _commonest_words(sample, ("en", "de", "fr", "es", "it", "pt", "nl", "sv", "pl", "tr"))
    counts = {code: len(pattern.findall(sample)) for code, pattern in _SCRIPTS}
    if counts["ja"] * 10 > counts["zh"]:
        counts["ja"] += counts["zh"]
    # An ideograph says as much as several letters do.
    counts["zh"] *= 3
    counts["ja"] *= 3
    code = max(counts, key=lambda name: counts[name])
    if not counts[code]:
        return "en"
    if code == "ru":
        return _commonest_words(sample, ("ru", "uk"))
    if code == "en":
        return _commonest_words(sample, ("en", "de", "fr", "es", "it", "pt", "nl", "sv", "pl", "tr"))
    return code


def _commonest_words(text: str, codes: Sequence[str]) -> str:
    words = Counter(re.findall(r"[^\W\d_]+", text.lower()))
    return max(codes, key=lambda code: sum(count for word, count in words.items() if word in _STOP[code]))


def terms(text: str, code: str) -> list[str]:
    """Return the terms of ``text`` that carry content: stems without stop words, pairs of characters where no spaces are.

    A sentence of stop words alone keeps them: it must still be alike to itself.

    >>> terms("The batteries were not lasting 3.5 days", "en")
    ['battery', 'not', 'last', '3.5', 'day']
    >>> terms("电池好", "zh")
    ['电池', '池好']
    """
    stop = _STOP.get(code, frozenset())
    kept: list[str] = []
    left_out: list[str] = []
    for match in _TERM.finditer(text):
        if match.lastgroup == "unspaced":
            run = match.group()
            kept.extend([run] if len(run) == 1 else (run[at : at + 2] for at in range(min(len(run) - 1, _LONGEST))))
        elif match.lastgroup == "number":
            kept.append(match.group())
        else:
            word = match.group().lower().replace("’", "'")
            if word.endswith("n't"):
                kept.append("not")
                word = word[:-3]
            word = word.partition("'")[0] if code == "en" else word.rpartition("'")[2]
            # 'in May' is a month, and no stop word.
            is_month = code == "en" and word == "may" and match.group()[0] == "M" and text[: match.start()].strip()
            if word in stop and not is_month:
                left_out.append(word)
            elif word:
                kept.append(_stem(word, code))
        if len(kept) >= _LONGEST:
            break
    return kept or left_out


def _stem(word: str, code: str) -> str:
    """Return ``word`` without its commonest endings (English), else its first letters: endings inflect."""
    if code != "en":
        return word if len(word) <= 7 else word[:6]
    if len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif word.endswith("sses"):
        word = word[:-2]
    elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) >= 3 and re.search(r"[aeiouy]", stem):
            if len(stem) > 3 and stem[-1] == stem[-2] and stem[-1] not in "lsz":
                stem = stem[:-1]
            return stem
    if len(word) > 4 and word.endswith("e"):
        return word[:-1]
    return word


def marks(text: str) -> frozenset[str]:
    """Return the numbers and negations of ``text``: sentences that differ in them say different things.

    >>> sorted(marks("It did not sell 12 units"))
    ['12', 'not']
    """
    found = {match.group() for match in re.finditer(r"\d+(?:[.,:]\d+)*", text)}
    for match in re.finditer(r"[^\W\d_]+(?:['’]t\b)?", text.lower()):
        word = match.group()
        if word in _NEGATORS or word.endswith(("n't", "n’t")):
            found.add("not")
    found.update("不" for _ in re.finditer(r"[不没沒未無无]|ない|ません|ไม่", text))
    return frozenset(found)


def inverse_frequencies(bags: Iterable[Mapping[str, int]]) -> dict[str, float]:
    """Return each term's smoothed inverse sentence frequency over ``bags``; always above 0."""
    frequency: Counter[str] = Counter()
    n_bags = 0
    for bag in bags:
        frequency.update(bag.keys())
        n_bags += 1
    return {term: math.log((n_bags + 1) / (count + 0.5)) for term, count in frequency.items()}


def cosine(one: Mapping[str, int], other: Mapping[str, int], weights: Mapping[str, float] | None = None) -> float:
    """Return the cosine in [0, 1] of two bags of terms, each term weighted by ``weights`` (1 where it has none).

    >>> round(cosine({"battery": 1, "last": 1}, {"battery": 1}), 3)
    0.707
    """

    def weigh(bag: Mapping[str, int], term: str) -> float:
        return bag[term] * (weights.get(term, 1.0) if weights else 1.0)

    if len(other) < len(one):
        one, other = other, one
    shared = sum(weigh(one, term) * weigh(other, term) for term in one if term in other)
    if not shared:
        return 0.0
    square = sum(weigh(one, term) ** 2 for term in one) * sum(weigh(other, term) ** 2 for term in other)
    return min(1.0, shared / math.sqrt(square))


def is_near_duplicate(
    one: Mapping[str, int],
    other: Mapping[str, int],
    one_marks: frozenset[str],
    other_marks: frozenset[str],
    repeats_from: float = 0.75,
) -> bool:
    """Return whether two sentences say the same in nearly the same words: one of them is enough.

    They do from a cosine of ``repeats_from`` on. Numbers and negations must agree: 'it lasts 10 hours'
    does not repeat 'it lasts 12 hours'.
    """
    return one_marks == other_marks and cosine(one, other) >= repeats_from
