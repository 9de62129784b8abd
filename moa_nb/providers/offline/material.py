"""What a person's message is about: the text in it, told apart from the instruction around it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from moa_nb.chat import Request
from moa_nb.providers.offline.length import is_size
from moa_nb.providers.offline.sentences import label, split

__all__ = ["Task", "find", "part"]


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked, and about which text."""

    instruction: str
    material: str | None
    """``None``: a bare question or instruction."""
    is_judging: bool = False
    """Whether the answer is a verdict, a score or a label, which no sentence of the text is."""


def find(request: Request) -> Task:
    """Return the task of the request's last user turn.

    Known material is taken as it is, and left out of the instruction along with the references that
    the turn quotes. A turn without a text of its own that asks for a summary is about the last text
    that the conversation brought. Whether a judgement is asked for, the instruction says: a text may speak of labels,
    scores and judges.
    """
    turns = [message.content for message in request.messages if message.role == "user"]
    last = request.question or (turns[-1] if turns else "")
    quoted = [*request.references, *([request.material] if request.material else [])]
    is_judged = any(
        message.role == "system"
        and _VERDICT.search(message.content)
        and _VERDICT.search(_bared(message.content, quoted))
        for message in request.messages
    )
    if request.material is not None and request.material.strip():
        instruction = _without(last, [request.material, *request.references])
        if instruction == last:
            # The text stands there in another form (shortened, say): what is around it must be found.
            instruction = part(last)[0]
        return Task(instruction, request.material, is_judged or _is_judging(instruction))
    instruction, material = part(_without(last, request.references))
    if material is None and request.references:
        # An earlier agent may have answered with the whole text.
        instruction, material = part(last)
    if material is None and _SUMMING_UP.search(last):
        for earlier in reversed(turns[:-1]):
            material = part(earlier)[1]
            if material is not None:
                break
    said = instruction if material is not None and _SUMMING_UP.search(instruction) else _bared(last, request.references)
    return Task(instruction, material, is_judged or bool(_VERDICT.search(said)) or _is_judging(instruction))


def _bared(text: str, quoted: Sequence[str]) -> str:
    """Return ``text`` without what it quotes."""
    for passage in sorted({one.strip() for one in quoted}, key=len, reverse=True):
        if passage:
            text = text.replace(passage, "\n")
    return text


def _without(text: str, quoted: Sequence[str]) -> str:
    """Return ``text`` without what it quotes, nor the lines that fenced it, nor what was said of them."""
    whole, text = text, _bared(text, quoted)
    if text == whole:
        return text
    marks = {line.strip() for line in re.findall(r"^[ \t]*\[[^\[\]\n]{1,80}\][ \t]*$", text, re.MULTILINE)}
    blocks = re.split(r"\n\s*\n", text)
    return "\n\n".join(block for block in blocks if not any(mark in block for mark in marks)).strip()


_OPENING = re.compile(
    r"^[ \t]*(?P<ticks>`{3,}|~{3,})[ \t]*[\w+-]{0,20}[ \t]*\n"
    r"|(?P<quotes>\"{3}|'{3})"
    r"|<(?P<tag>[A-Za-z][\w-]{0,60})(?:\s[^<>\n]{0,200})?>"
    r"|(?P<angles><{3,})"
    r"|^[ \t]*(?P<mark>\[[^\[\]\n]{1,80}\]|[^\w\s>|`~\"']{3,20}[^\n]{0,80})[ \t]*\n",
    re.MULTILINE,
)
_QUOTED_LINE = re.compile(r"^[ \t]{0,3}>[ \t]?(?P<text>.*)$", re.MULTILINE)

_VERBS = (
    "summari[sz]e|sum up|condense|shorten|compress|abridge|distil+|recap|boil (?:it |this )?down|"
    "paraphrase|rephrase|rewrite|reword|"
    "synthesi[sz]e|simplify|explain|describe|extract|list|outline|highlight|identify|find|pick|select|"
    "choose|quote|give|tell|"
    "write|compose|draft|create|generate|produce|provide|make|turn|convert|translate|analy[sz]e|review|"
    "read|answer|respond|reply|"
    "discuss|compare|evaluate|assess|judge|rate|score|grade|rank|classify|categori[sz]e|label|tag|decide|determine|"
    "state|name|define|suggest|recommend|propose|plan|design|develop|implement|solve|compute|calculate|"
    "count|prove|show|imagine|"
    "pretend|act|assume|consider|edit|correct|fix|improve|proofread|help|can you|could you|would you|"
    "will you|please|kindly|"
    "i want you to|i need|i'd like|let's|tl;?dr|in (?:one|two|three|a|\\d+)\\b|use|using|based on|using "
    "only|keep|begin|start|take|"
    "here is|here's|here are|below is|below are|the following|following is|add|format|present|report|"
    "detail|do not|don't|return|"
    "as a|you are|your task|note the|craft|given|suppose|each problem|brainstorm|complete|continue|fill|"
    "guess|sort|organi[sz]e|structure|"
    "fasse?n?|gib|schreibe?|erkläre?|nenne|beschreibe?|kürze|bitte|résume[zr]?|donne[zr]?|écri[st]|"
    "expli\\w+|resum\\w+|escrib\\w+|"
    "riassum\\w+|scriv\\w+|spiega\\w*|vat|geef|schrijf|резюмир\\w+|кратко|напиши|перескажи|суммируй|подведи|özetle"
)
_INSTRUCTS = re.compile(
    rf"\W*(?:(?:now|then|next|first|also|and|so|ok|okay|hi|hello|hey)[\s,.!]+)?(?:{_VERBS})(?![\w'])", re.IGNORECASE
)
_PRESENT = re.compile(r"\W*(?:present|name|state)\s*:", re.IGNORECASE)
_SUMMING_UP = re.compile(
    r"\b(?:summar\w+|sum(?:s|med)? (?:it |this |that )?up|tl;?dr|condense|shorten|shorter|recap|gist|key "
    r"points|takeaways?|"
    r"synthesi[sz]e|synthesis|boil|abstract|digest|nutshell|zusammenfass\w*|fasse?\b.*\bzusammen|kürze\w*|"
    r"résum\w+|resum\w+|"
    r"riassu\w+|samenvat\w*|vat\b.*\bsamen|резюм\w+|кратк\w+|özet\w*|main (?:point|idea)s?)"
    r"|总结|總結|概括|摘要|要約|まとめ|요약|สรุป|संक्षेप|सारांश|لخص|تلخيص|סכם",
    re.IGNORECASE,
)
_REFERS = re.compile(
    r"\b(?:above|below|following|this (?:text|review|article|passage|paragraph|message|email|e-mail|"
    r"document|abstract|note|"
    r"ticket|conversation|report|story|post|comment|transcript|paper)|the (?:text|review|article|passage|"
    r"document|context|abstract))\b",
    re.IGNORECASE,
)
_UNSPACED_INSTRUCTS = re.compile(
    r"请|請|总结|總結|概括|摘要|要約|まとめ|ください|요약|สรุป|翻译|翻訳|解释|説明|लिखिए|सारांश|لخص|סכם"
)
_QUESTION = re.compile(r"[?？؟]['\"”’)\]]*\s*$")
_VERDICT = re.compile(
    r"\b(?:act as|you are|be) (?:an? )?(?:\w+ ){0,2}(?:judge|evaluator|grader|referee)\b"
    r"|\[\[(?:A|B|C|rating|score|\d+)\]\]|\bAssistant [AB]['’]s (?:Answer|Conversation)\b",
    re.IGNORECASE,
)
_JUDGING = re.compile(
    r"\bwhich (?:(?:one|of|the|these|two|following|candidate|assistant|model)\s+)*(?:answers?|responses?|"
    r"repl(?:y|ies)|assistants?|"
    r"outputs?|candidates?|summar(?:y|ies)|proposals?|options?)?\s*(?:is|are|was|"
    r"does)\b[^.?\n]{0,30}\b(?:better|best|worse|worst|preferable|correct|superior)\b"
    r"|\b(?:evaluate|compare|judge|rank|grade|score|rate|assess)\b[^.?\n]{0,60}\b(?:answers?|responses?|"
    r"repl(?:y|ies)|assistants?|candidates?|outputs?|proposals?|solutions?)\b"
    r"|\b(?:on|using|with) an? (?:\w+[ -])?scale (?:of|from)\b|\bscale of \d"
    r"|\b(?:rate|score|grade)\b[^.\n]{0,60}\b(?:from|between|out of)\s*\d"
    r"|\b(?:score|rating|grade) (?:from|between|of) \d+ (?:to|and|-) ?\d+"
    r"|\bverdict\b"
    r"|\b(?:answer|reply|respond)(?: only)?(?: with)?:? [\"'“]?(?:yes|true)[\"'”]? or [\"'“]?(?:no|false)\b"
    r"|\btrue or false\b",
    re.IGNORECASE,
)
_LABELLING = re.compile(
    r"(?:^|[.!?:]\s+|\n\s*)(?:please\s+|now\s+)?(?:classify|categori[sz]e|label|tag|judge|rate|score|grade|rank)\b"
    r"|\b(?:choose|pick|select|assign|answer with|reply with|respond with)\b[^.\n]{0,40}\b(?:labels?|"
    r"categor(?:y|ies)|class(?:es)?)\b",
    re.IGNORECASE,
)
_FIELD = re.compile(r"\s*\w[\w ]{0,30}:\s")


def _is_judging(instruction: str) -> bool:
    if not _SUMMING_UP.search(instruction):
        return bool(_JUDGING.search(instruction) or _LABELLING.search(instruction))
    # What stands beside a summary's instruction may be a text too, such as a ticket's subject.
    lines = [line for line in instruction.split("\n") if _instructs(line) or not _FIELD.match(line)]
    said = [one.text for line in lines if _JUDGING.search(line) for one in split(line)]
    return any(_JUDGING.search(sentence) and _is_demand(sentence) for sentence in said)


def part(text: str) -> tuple[str, str | None]:
    """Return the instruction in ``text`` and the material, ``None`` for a bare question or instruction.

    >>> part("Summarize in one line: It is fast. It is loud.")
    ('Summarize in one line:', 'It is fast. It is loud.')
    >>> part("What is the capital of France?")
    ('What is the capital of France?', None)
    """
    text = text.strip().replace("\r\n", "\n")
    return (
        _fenced(text)
        or _quoted(text)
        or _by_lead_in(text)
        or _by_first_sentence(text)
        or _by_blocks(text)
        or _by_lines(text)
        or _by_sentences(text)
    )


def _fenced(text: str) -> tuple[str, str] | None:
    inside: list[str] = []
    outside: list[str] = []
    at = 0
    for start, inner, inner_end, end in _fences(text):
        outside.append(text[at:start])
        inside.append(text[inner:inner_end].strip("\r\n"))
        at = end
    around = "\n".join([*outside, text[at:]]).strip()
    material = "\n\n".join(part_of_it for part_of_it in inside if part_of_it.strip())
    if not material or (around and not _is_around(around)):
        return None
    # Emphasis in the middle of a text is no fence around it.
    return (around, material) if _n_words(material) * 2 >= _n_words(around) else None


def _fences(text: str) -> Iterator[tuple[int, int, int, int]]:
    """Yield where each fence begins, its inside begins and ends, and it ends itself."""
    unclosed: set[str] = set()
    at = 0
    while opening := _OPENING.search(text, at):
        at = opening.end()
        kind = opening.lastgroup or ""
        mark = opening[kind]
        closing = {"tag": f"</{mark}>", "angles": ">" * len(mark), "quotes": mark}.get(kind, f"\n{mark}")
        # A mark that is not closed from here on is not closed later either.
        if closing in unclosed:
            continue
        end = text.find(closing, max(opening.start() + 1, at - 1))
        while kind in {"ticks", "mark"} and end >= 0 and text[end + len(closing) :].partition("\n")[0].strip():
            end = text.find(closing, end + 1)
        if end < 0:
            unclosed.add(closing)
            continue
        yield opening.start(), at, max(at, end), end + len(closing)
        at = end + len(closing)


def _quoted(text: str) -> tuple[str, str] | None:
    inside = [match["text"] for match in _QUOTED_LINE.finditer(text)]
    outside = _QUOTED_LINE.sub("", text).strip()
    if not inside or not "".join(inside).strip() or (outside and not _is_around(outside)):
        return None
    return outside, "\n".join(inside).strip("\n")


def _is_around(outside: str) -> bool:
    """Return whether what stands outside of a fence is but an instruction."""
    return _n_words(outside) <= 120 and all(
        _instructs(block)
        or _QUESTION.search(block)
        or _REFERS.search(block)
        or len(block) < 60
        or block.rstrip().endswith((":", "："))
        for block in re.split(r"\n\s*\n", outside)
        if block.strip()
    )


def _n_words(text: str) -> int:
    """Return the words of ``text``; two characters make one where there are no spaces."""
    unspaced = re.findall(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]", text)
    return (
        len(re.findall(r"[^\W\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+", text))
        + len(unspaced) // 2
    )


def _instructs(text: str) -> bool:
    """Return whether ``text`` tells somebody to do something with a text, or asks for it."""
    text = text.strip()
    if _n_words(text) > 80 or _PRESENT.match(text):
        return False
    return bool(
        _INSTRUCTS.match(text)
        or (
            _n_words(text) <= 40
            and (_UNSPACED_INSTRUCTS.search(text) or (_SUMMING_UP.search(text) and _REFERS.search(text)))
        )
    )


def _demands(block: str) -> bool:
    """Return whether a whole block instructs, asks or gives a length, if need be sentence by sentence."""
    if _is_demand(block):
        return True
    sentences = split(block) if _n_words(block) <= 60 else []
    return bool(sentences) and all(_is_demand(one.text) for one in sentences)


def _is_demand(sentence: str) -> bool:
    return _instructs(sentence) or _asks(sentence) or is_size(sentence)


def _asks(text: str) -> bool:
    text = text.strip()
    return bool(_QUESTION.search(text)) and _n_words(text) <= 60


def _by_first_sentence(text: str) -> tuple[str, str] | None:
    """Return instruction and material where the material begins in the line of the instruction."""
    units = split(text.partition("\n\n")[0])
    if len(units) < 2 or units[0].kind != "prose" or not _is_about_text(units[0].text):
        return None
    if any(_is_demand(unit.text) or _REFERS.search(unit.text) for unit in units[1:3]):
        return None
    return _without_tail(units[0].text, text[units[0].end :].strip())


def _without_tail(instruction: str, material: str) -> tuple[str, str]:
    """Return instruction and material, a closing demand ('In two sentences.') moved to the instruction."""
    body, gap, tail = material.rpartition("\n")
    if gap and body.strip() and _is_about_text(tail):
        return f"{instruction}\n{tail}", body.strip()
    return instruction, material


def _by_blocks(text: str) -> tuple[str, str] | None:
    """Return instruction and material where blank lines part them."""
    spans = _spans(r"\n\s*\n", text)
    blocks = [text[start:end] for start, end in spans]
    first, last = 0, len(blocks)
    # A text that ends in a question, with the instruction behind it, is no question itself.
    is_behind = len(blocks) > 1 and _closes(blocks[-1], is_last=True) and not _tells(blocks[-1]) and _tells(blocks[0])
    while not is_behind and first < last - 1 and _opens(blocks[first], is_first=first == 0):
        first += 1
    while last - 1 > first and _closes(blocks[last - 1], is_last=last == len(blocks)):
        last -= 1
    around = [*blocks[:first], *blocks[last:]]
    if not around:
        return None
    instruction, material = "\n\n".join(around), text[spans[first][0] : spans[last - 1][1]].strip("\n")
    if label := _LABEL.match(material):
        material = material[label.end() :]
    if _SUMMING_UP.search(instruction):
        # A summary can be asked of anything.
        return (instruction, material) if _n_words(material) else None
    if _is_answering(material, instruction):
        return instruction, material
    if last - first == 1 and _is_demand(material):
        return None
    # A question needs a text that can hold the answer.
    enough = 1 if _REFERS.search(instruction) else 20
    return (instruction, material) if _n_words(material) >= enough else None


def _is_answering(material: str, instruction: str) -> bool:
    """Return whether a short text beside a question or a length tells at length what is so.

    A story that itself ends in a question is a problem to be solved, unless another question is asked of it.
    """
    sentences = split(material)
    around = split(instruction)
    asks = any(_asks(sentence.text) and not _instructs(sentence.text) for sentence in around)
    return (
        _tells(material)
        and (asks or any(is_size(sentence.text) for sentence in around))
        and (asks or not _asks(sentences[-1].text))
        and not _EXERCISE.search(f"{instruction} {material}")
        and _n_words(material) > _n_words(instruction)
    )


def _tells(block: str) -> bool:
    """Return whether two sentences or more of a block neither instruct nor ask."""
    return sum(not _is_demand(sentence.text) for sentence in split(block)) >= 2


def _opens(block: str, *, is_first: bool) -> bool:
    block = block.strip()
    if _is_listed(block) or (not is_first and label(block, "en")):
        return False
    if block.endswith((":", "：")) and _n_words(block) <= 40:
        return is_first or _instructs(block) or bool(_REFERS.search(block))
    return _demands(block) and (is_first or _goes_on(block))


def _closes(block: str, *, is_last: bool) -> bool:
    return not _is_listed(block) and not label(block, "en") and _demands(block) and (is_last or _goes_on(block))


def _goes_on(block: str) -> bool:
    """Return whether a second block is instruction too, and not the beginning of the text."""
    return _n_words(block) <= 12 or bool(_SUMMING_UP.search(block) or _REFERS.search(block))


def _is_listed(block: str) -> bool:
    return bool(re.match(r"\s*(?:[-*+•|#]|\d+[.)]\s)", block))


_LABEL = re.compile(r"\s*(?:text|review|article|passage|input|context|document|abstract|content)\s*:\s*", re.IGNORECASE)
_LEAD_IN = re.compile(r"(?P<instruction>[^\n:：]{2,300}[:：])[ \t]*(?P<material>\S.*)", re.DOTALL)


def _by_lead_in(text: str) -> tuple[str, str] | None:
    """Return instruction and material where a colon parts them within a line."""
    match = _LEAD_IN.match(text)
    if not match or not _instructs(match["instruction"]):
        return None
    instruction, material = match["instruction"], match["material"].strip()
    is_about_text = bool(_SUMMING_UP.search(instruction))
    if not is_about_text and _by_blocks(text) is not None:
        return None
    enough = 1 if is_about_text else 6 if _REFERS.search(instruction) else 40
    return _without_tail(instruction, material) if _n_words(material) >= enough else None


def _spans(gap: str, text: str) -> list[tuple[int, int]]:
    """Return where the parts of ``text`` between the gaps begin and end, without blank ones."""
    gaps = [(0, 0), *(match.span() for match in re.finditer(gap, text)), (len(text), len(text))]
    spans = [(before[1], after[0]) for before, after in pairwise(gaps)]
    return [(start, end) for start, end in spans if text[start:end].strip()]


def _by_lines(text: str) -> tuple[str, str] | None:
    """Return instruction and material where a line break parts them."""
    spans = _spans(r"\n", text)
    lines = [text[start:end] for start, end in spans]
    first, last = 0, len(lines)
    while (
        first < last - 1 and _opens(lines[first], is_first=first == 0) and not lines[first + 1].lstrip()[:1].islower()
    ):
        first += 1
    # A line of a wrapped paragraph may begin with a verb: an instruction begins anew.
    while last - 1 > first and _closes(lines[last - 1], is_last=last == len(lines)):
        if lines[last - 1].lstrip()[:1].islower() and not re.search(r"[.!?。！？:]\W*$", lines[last - 2]):
            break
        last -= 1
    around = "\n".join([*lines[:first], *lines[last:]])
    if not around:
        return None
    material = text[spans[first][0] : spans[last - 1][1]]
    enough = 1 if _SUMMING_UP.search(around) or _REFERS.search(around) else 40
    return (around, material) if _n_words(material) >= enough else None


def _by_sentences(text: str) -> tuple[str, str | None]:
    """Return instruction and material where they run on, and decide whether a bare text is a material."""
    units = split(text)
    first, last = 0, len(units)
    while first < last and _is_about_text(units[first].text):
        first += 1
    while last > first and _is_about_text(units[last - 1].text):
        last -= 1
    if first == last:
        return text, None
    if first > 0 or last < len(units):
        material = text[
            units[first - 1].end if first else 0 : units[last].start if last < len(units) else len(text)
        ].strip()
        instruction = " ".join(unit.text for unit in [*units[:first], *units[last:]])
        if _n_words(material) >= 2 and not all(_is_demand(unit.text) for unit in units[first:last]):
            return instruction, material
        return text, None
    return _bare(text, [unit.text for unit in units if unit.kind != "heading"])


def _is_about_text(sentence: str) -> bool:
    """Return whether the sentence asks for a summary of what stands beside it."""
    if _n_words(sentence) > 40 or not _SUMMING_UP.search(sentence):
        return False
    return _instructs(sentence) or _asks(sentence)


def _bare(text: str, sentences: Sequence[str]) -> tuple[str, str | None]:
    """Decide about a text without any instruction: it goes out as it is, and may be a text or a question."""
    n_words = _n_words(text)
    if not sentences or (len(sentences) == 1 and n_words < 8):
        return text, None
    is_long = n_words >= 100 and len(sentences) >= 4
    if is_long:
        return (text, None) if _instructs(" ".join(sentences[:2])) and _instructs(sentences[-1]) else ("", text)
    if _asks(sentences[-1]) or _asks(sentences[0]) or _instructs(sentences[0]) or _instructs(sentences[-1]):
        return text, None
    if _EXERCISE.search(text) or (len(sentences) == 1 and _WONDERS.match(text)):
        return text, None
    return "", text


_EXERCISE = re.compile(
    r"(?:^|[,.]\s+)(?:then )?(?:calculate|compute|solve)\b|\bhow (?:many|much)\b[^.]*\?", re.IGNORECASE
)
_WONDERS = re.compile(
    r"\W*(?:how|what|why|when|where|who|whom|whose|which|is|are|can|do|does|did|should|could|would)\b", re.IGNORECASE
)
