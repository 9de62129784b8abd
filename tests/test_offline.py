"""The offline agents: sentences, material, length, ranks, consensus, and what holds for any text."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moa_nb as moa  # noqa: F401 - brings df.moa
from moa_nb.chat import Completion, Message, Request, Sampling, conversation
from moa_nb.errors import RowError, UnknownName
from moa_nb.providers.offline import ALGORITHMS, VERSION, answer
from moa_nb.providers.offline.consensus import agreement
from moa_nb.providers.offline.length import asked, suitable
from moa_nb.providers.offline.material import find, part
from moa_nb.providers.offline.rank import MOST_SENTENCES, read, scores
from moa_nb.providers.offline.sentences import split
from moa_nb.providers.offline.words import language
from moa_nb.tokens import count_tokens

PROPOSERS = ("textrank", "lexrank", "lsa", "lead")
REVIEW = (
    "I bought this vacuum cleaner in March. The battery of the vacuum cleaner lasts forty minutes. "
    "Its suction is strong on carpets and on wood. My cat hates it. "
    "After two months the battery lasts only ten minutes. The maker replaced the battery without a charge. "
    "All in all the suction is strong and the battery is the weak part."
)


def ask(name: str, text: str, **fields: object) -> Completion:
    """Return what an agent answers to a text."""
    return answer(Request(f"offline:{name}", conversation(text), **fields))  # type: ignore[arg-type]


def flat(text: str) -> str:
    """Return the text with single spaces."""
    return " ".join(text.split())


def squeezed(text: str) -> str:
    """Return the text without white space."""
    return "".join(text.split())


def texts_of(text: str) -> list[str]:
    """Return the sentences of a text."""
    return [sentence.text for sentence in split(text)]


# --- sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. Li paid 3.50 dollars. It broke.", ["Dr. Li paid 3.50 dollars.", "It broke."]),
        ("It weighs approx. 3 kg. Fine.", ["It weighs approx. 3 kg.", "Fine."]),
        ("We compare A vs. No. 2 here. Next.", ["We compare A vs. No. 2 here.", "Next."]),
        ("Use e.g. this one, i.e. the U.S. version. Go.", ["Use e.g. this one, i.e. the U.S. version.", "Go."]),
        ("Call System.Out.println now. Done.", ["Call System.Out.println now.", "Done."]),
        ("He told me. I left.", ["He told me.", "I left."]),
        ("Really?! Yes. 😀", ["Really?!", "Yes. 😀"]),
        ("Am 3. Mai kam z.B. Herr Dr. Müller. Er ging.", ["Am 3. Mai kam z.B. Herr Dr. Müller.", "Er ging."]),
    ],
)
def test_abbreviations_and_numbers_end_no_sentence(text: str, expected: list[str]) -> None:
    """A full stop after an abbreviation or inside a number does not end a sentence."""
    assert texts_of(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "The mill closed in May. | Forty people lost their work. | The town bought the mill.",
        "It opened on May. 5 in Rome. | It closed in May. | 40 people left.",
        "He said no. | Nobody came. | The No. One player took No. 5 home. | Forty clapped.",
        "We met on 3 Mar. | Rosa came. | In Dec. Rosa left. | We waited until Dec. | Rosa came back.",
        "They sell lids, rings etc. | Forty people work there.",
        "He likes modern art. | Rosa wrote art. 5 of it. | We saw the fig. | Tom saw fig. A of it.",
        "Forty work for Acme Inc. | Rosa too. | Acme Inc. Chairman Li left. | In Co. Mayo Rosa rests.",
        "It was us. | Rosa is. | Forty came in. | It was I. | Tom sat with me. | Rosa was ill. | All are ok. | Ada too.",
        "At 6 p.m. Rosa slept. | It closed at 6 p.m. | Forty slept. | It was Sat. | Rosa rose on Sun. | Tom did not.",
        "It was made in the U.S. | Forty people made it. | The U.S. Senate sat.",
        "He took vitamin C. | Rosa took none. | John F. Kennedy and J. Smith came.",
        "See Bush v. Gore, Li et al. Nature 5, Gen. Li, Sen. Fox, Mt. Fuji and St. Louis. | One more rep. | Rosa rests.",
        "He lives at 5 Main St. | Rosa lives on Park Ave. | Tom lives in Reading, Pa. | Ada met Ken. | Rosa met Al. | So.",
        'He said "I came in May. Forty left." and went. | It broke (in May.) | Forty left.',
    ],
)
def test_words_that_are_abbreviations_elsewhere_end_sentences(text: str) -> None:
    """A full word before a capitalised one that does not go on with it ends a sentence."""
    assert texts_of(text.replace(" | ", " ")) == text.split(" | ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "今天天气好。我们去吧！他说：“好的。”然后走了。3.14是π。",
            ["今天天气好。", "我们去吧！", "他说：“好的。”", "然后走了。", "3.14是π。"],
        ),
        ("彼は「はい。いいえ。」と言った。3.5である。", ["彼は「はい。いいえ。」と言った。", "3.5である。"]),
        ("यह एक वाक्य है। यह दूसरा है।", ["यह एक वाक्य है।", "यह दूसरा है।"]),
    ],
)
def test_languages_with_other_full_stops_are_split(text: str, expected: list[str]) -> None:
    """Chinese, Japanese and Hindi sentences end where theirs end, quotations stay whole."""
    assert texts_of(text) == expected


def test_thai_is_split_at_spaces_between_clauses() -> None:
    """Thai has no full stop: a long run is cut at its spaces, and no letter is lost."""
    text = "สวัสดีครับ วันนี้อากาศดีมากๆ เลยนะครับทุกคน เราไปเที่ยวกันเถอะครับ เพราะว่าราคา 3.5 บาทเท่านั้น แล้วก็ไปกินข้าวกันที่ร้านอาหาร"
    assert len(texts_of(text)) == 3
    assert "".join("".join(texts_of(text)).split()) == "".join(text.split())


def test_blocks_are_units_of_their_own() -> None:
    """Headings, items, rows and lines of code are told apart from prose, and markers are left out."""
    text = "# Report\n\nSales rose\nby 3.5 %. Costs fell.\n\nPros:\n- fast\n- light. And small\n1. One\n2. Two\n   goes on\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\nx = 1\n```\n"
    assert [(one.kind, one.text) for one in split(text)] == [
        ("heading", "Report"),
        ("prose", "Sales rose\nby 3.5 %."),
        ("prose", "Costs fell."),
        ("heading", "Pros:"),
        ("item", "fast"),
        ("item", "light."),
        ("item", "And small"),
        ("item", "One"),
        ("item", "Two\n   goes on"),
        ("row", "| 1 | 2 |"),
        ("code", "x = 1"),
    ]


@given(st.text(max_size=400))
@settings(max_examples=200, deadline=None)
def test_sentences_are_slices_in_order(text: str) -> None:
    """Every sentence is a slice of the text, none is empty, and none overlaps the next."""
    end = 0
    for sentence in split(text):
        assert sentence.text
        assert text[sentence.start : sentence.end] == sentence.text
        assert sentence.start >= end
        end = sentence.end


@given(
    st.lists(
        st.sampled_from(["It is fast.", "3.5 kg!", "Dr. No left?", "电池好。", "สวัสดี", "a", "(so)", "\u200d"]),
        max_size=12,
    )
)
@settings(deadline=None)
def test_no_character_of_prose_is_lost(pieces: list[str]) -> None:
    """The sentences of a paragraph together hold every character that is not white space."""
    text = " ".join(pieces)
    assert "".join("".join(texts_of(text)).split()) == "".join(text.split())


# --- material


@pytest.mark.parametrize(
    "message",
    [
        f"Summarize this review in one line:\n\n{REVIEW}",
        f"{REVIEW}\n\nSummarize the above in one line.",
        f"Summarize in one line: {REVIEW}",
        f"Summarize this in one line. {REVIEW}",
        f"{REVIEW} Summarize the above in one line.",
        f"Summarize in one line:\n```\n{REVIEW}\n```",
        f'Summarize in one line """{REVIEW}"""',
        f"<review>\n{REVIEW}\n</review>\n\nCan you summarize it in one line?",
        f"Summarize in one line:\n\n> {REVIEW}",
        f"Summarize in one line\n\nThe text stands between two lines that hold the mark [q1].\n\n[q1]\n{REVIEW}\n[q1]",
        f"You are an analyst.\n\nPlease summarize the following review in one line:\n\n{REVIEW}",
    ],
)
def test_material_is_told_from_the_instruction(message: str) -> None:
    """However the instruction stands around it, the text alone is the material."""
    instruction, material = part(message)
    assert material is not None
    assert material.strip() == REVIEW
    assert asked(instruction).sentences == 1


@pytest.mark.parametrize(
    "message",
    [
        "What is the capital of France?",
        "Write a poem about the sea.",
        "Summarize",
        "Hello",
        "",
        "Tom has 3 apples and buys 4. How many apples does he have?",
        "Compose an engaging travel blog post about a recent trip to Hawaii, highlighting must-see attractions.",
    ],
)
def test_a_bare_question_has_no_material(message: str) -> None:
    """A question or an instruction without a text is refused in a line that names the fix."""
    assert part(message)[1] is None
    with pytest.raises(RowError, match="OPENAI_API_KEY") as caught:
        ask("textrank", message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "message",
    [
        f"Which answer is better?\n\nA: {REVIEW}\n\nB: It is fast.",
        f"Please act as an impartial judge and evaluate the answer below.\n\n{REVIEW}",
        f"Rate this review on a scale of 1 to 5:\n\n{REVIEW}",
        f"Classify this review as praise, bug or billing:\n\n{REVIEW}",
    ],
)
def test_judging_is_refused(message: str) -> None:
    """No sentence of a text is a verdict, a score or a label."""
    with pytest.raises(RowError, match="cannot judge"):
        ask("consensus", message)


def test_a_text_that_speaks_of_rating_is_no_judging() -> None:
    """What counts is what is asked, not what the text says."""
    text = "Rate limits annoy me. I rate it 3 of 5 on a scale of 1 to 5. The verdict is out."
    assert ask("lead", f"Summarize in one sentence:\n\n{text}").text == "Rate limits annoy me."


SPEAKING = (
    "Label this ticket urgent.",
    "You are a poor judge of wine.",
    "Final verdict: 3 of 5.",
    "Rate your stay from 1 to 5.",
    "Which answer is better?",
    "Be a judge yourself: [[A]].",
)
"""Sentences of a text in the words that ask for a judgement."""


@pytest.mark.parametrize("sentence", SPEAKING)
@pytest.mark.parametrize("pipeline", ["single", "moa-lite"])
@pytest.mark.parametrize(
    "how",
    [
        {"column": "text", "instruction": "Summarize in a line"},
        {"column": "text", "instruction": "What went wrong?"},
        {"template": "Shorten: {{ text }}"},
        {"template": "Shorten this.\n\n{{ text | upper }}"},
        {"template": "Summarize the ticket.\n\nSubject: {{ subject }}\nText: {{ text }}"},
    ],
    ids=["instruction", "question", "template", "changed", "two columns"],
)
def test_a_rows_own_words_do_not_ask_for_a_judgement(sentence: str, pipeline: str, how: dict[str, str]) -> None:
    """Whatever the instruction around them is, and whichever agent quotes them to the next."""
    frame = pd.DataFrame({"subject": [sentence, "Late"], "text": [REVIEW, f"{sentence} {REVIEW}"]})
    assert frame.moa.synthesize(**how, pipeline=pipeline, progress=False).notna().all()


def test_a_groups_texts_do_not_ask_for_a_judgement() -> None:
    """Nor do the texts that are summarized together."""
    frame = pd.DataFrame({"text": [f"{sentence} {REVIEW}" for sentence in SPEAKING], "by": [1, 1, 1, 2, 2, 2]})
    assert frame.moa.summarize("text", by="by", progress=False).notna().all()


def test_a_person_may_ask_for_a_summary_of_a_text_about_judges() -> None:
    """In one message, too: an instruction to summarize is none to judge."""
    for sentence in SPEAKING:
        assert ask("lead", f"Summarize in one sentence:\n\n{sentence} {REVIEW}").text
    with pytest.raises(RowError, match="cannot judge"):
        ask("lead", f"Summarize both answers and rate them from 1 to 5.\n\nA: {REVIEW}\n\nB: It is fast.")


MILL = "The mill closed in May. Forty people lost their work. The town bought the mill."
MILL_LONG = (
    f"# The mill\n\n{MILL} Nobody knows what it is for.\n\n"
    "- Rosa read the accounts. They were bad.\n- The loan was never paid back."
)


@pytest.mark.parametrize("material", [MILL, MILL_LONG])
@pytest.mark.parametrize(
    ("instruction", "n_sentences"),
    [
        ("Why did the mill close? Three sentences for the board.", 3),
        ("Why did the mill close? Answer in three sentences.", 3),
        ("Three sentences for the board, please.", 3),
        ("For the board, in two sentences.", 2),
        ("Tell the mill's story in brief. In at most four lines.", 4),
    ],
)
def test_a_question_or_a_length_beside_a_text_is_the_instruction(
    instruction: str, n_sentences: int, material: str
) -> None:
    """A blank line parts it from the text, before it or behind it."""
    for message in (f"{instruction}\n\n{material}", f"{material}\n\n{instruction}"):
        found, text = part(message)
        assert text == material
        assert found == instruction
        assert asked(found).sentences == n_sentences


def test_a_question_alone_beside_a_text_is_the_instruction() -> None:
    """It needs no length, and the text may end in a question of its own."""
    for material in (MILL, MILL_LONG, f"{MILL} Who will pay?"):
        assert part(f"Why did the mill close?\n\n{material}") == ("Why did the mill close?", material)
        assert part(f"{material}\n\nWhy did the mill close?") == ("Why did the mill close?", material)


@pytest.mark.parametrize(
    "message",
    [
        "Why did the mill close? Three sentences for the board.",
        "Three sentences for the board.\n\nWhy did the mill close?",
        "Why did it close?\n\nWho bought it? Who paid?",
        "Solve this.\n\nTom has 3 apples. He buys 4 more. How many apples does he have?",
        "Tom has 3 apples. He buys 4 more. How many apples does he have?\n\nAnswer in one sentence.",
        "Can you solve this?\n\nTom has 3 apples. He buys 4 more. How many apples does he have?",
    ],
)
def test_questions_and_lengths_alone_have_no_material(message: str) -> None:
    """Several of them make no text."""
    assert part(message)[1] is None


def test_a_text_that_begins_with_a_number_of_lines_is_a_text() -> None:
    """'Two lines were closed' tells something and asks for no length."""
    text = f"Two lines for the north were closed. Forty people left.\n\n{MILL} Nobody knows what it is for."
    assert part(text)[0] == ""
    assert part(f"Summarize in one sentence.\n\nPresent: Ada, Tom.\n\n{MILL}")[1] == f"Present: Ada, Tom.\n\n{MILL}"


def test_a_plain_text_is_its_own_material() -> None:
    """A cell that holds a text and no instruction is about that text."""
    assert part(REVIEW) == ("", REVIEW)


def test_a_follow_up_is_about_the_earlier_text() -> None:
    """'Shorter' in a conversation means the text that came before."""
    turns = conversation(
        [
            {"role": "user", "content": f"Summarize:\n\n{REVIEW}"},
            {"role": "assistant", "content": "It is fine."},
            {"role": "user", "content": "Summarize it in one sentence."},
        ]
    )
    task = find(Request("offline:lead", turns))
    assert task.material == REVIEW
    assert answer(Request("offline:lead", turns)).text == texts_of(REVIEW)[0]


def test_quoted_references_are_not_the_material() -> None:
    """Answers that the turn quotes are taken out before the text is looked for."""
    reference = "The suction is strong, says the buyer, and she would buy it again in two sentences."
    turn = f"Summarize in one line:\n\n{REVIEW}\n\n[x1]\n1. {reference}\n[x1]"
    task = find(Request("offline:lead", conversation(turn), references=(reference,)))
    assert task.material is not None
    assert reference not in task.material
    assert REVIEW in task.material
    known = find(Request("offline:lead", conversation(turn), references=(reference,), material=REVIEW))
    assert known.material == REVIEW
    assert asked(known.instruction).sentences == 1


# --- length


@pytest.mark.parametrize(
    ("instruction", "n_sentences"),
    [
        ("in one sentence", 1),
        ("a one-line summary", 1),
        ("in a line", 1),
        ("in two sentences", 2),
        ("in 2-3 sentences", 3),
        ("no more than three short sentences", 3),
        ("in 2 bullet points", 2),
        ("five key takeaways", 5),
        ("in einem Satz", 1),
        ("en deux phrases", 2),
        ("用一句话总结", 1),
        ("3文で要約", 3),
        ("The text stands between the two lines", None),
        ("Summarize this review", None),
    ],
)
def test_a_length_in_sentences_is_read(instruction: str, n_sentences: int | None) -> None:
    """Numbers in words and figures, ranges, bullets and a few languages are understood."""
    assert asked(instruction).sentences == n_sentences


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_length_asked_for_is_kept(name: str) -> None:
    """Sentences, bullets, words and characters are all bounds."""
    assert len(texts_of(ask(name, "Summarize in one sentence", material=REVIEW).text)) == 1
    assert len(texts_of(ask(name, "Summarize in three sentences", material=REVIEW).text)) == 3
    bullets = ask(name, "Summarize in 2 bullet points", material=REVIEW).text.splitlines()
    assert [line[:2] for line in bullets] == ["- ", "- "]
    assert 1 <= len(ask(name, "Summarize in at most 20 words", material=REVIEW).text.split()) <= 20
    assert 1 <= len(ask(name, "Summarize in 60 characters", material=REVIEW).text) <= 60


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_short_text_comes_back_whole(name: str) -> None:
    """One or two sentences are their own summary."""
    assert ask(name, "Summarize", material="  It is fast.\nIt is loud. ").text == "It is fast.\nIt is loud."


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("limit", [1, 5, 12, 30])
def test_max_tokens_bounds_the_answer(name: str, limit: int) -> None:
    """No answer is longer than ``max_tokens``; one that had to be cut says so."""
    done = ask(name, "Summarize", material=REVIEW, sampling=Sampling(max_tokens=limit))
    assert done.text
    assert count_tokens(done.text) <= limit
    whole = {flat(sentence) for sentence in texts_of(REVIEW)}
    assert (done.finish_reason == "length") == (not set(texts_of(done.text)) <= whole)


@given(st.integers(min_value=1, max_value=100_000))
def test_the_suitable_length_grows_slowly(n_sentences: int) -> None:
    """It is at least one, never more than there are, and never shrinks."""
    assert 1 <= suitable(n_sentences) <= n_sentences
    assert suitable(n_sentences) <= suitable(n_sentences + 1)


# --- answers


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_answer_says_what_it_is(name: str) -> None:
    """It costs nothing, is counted by estimate, and says that no language model wrote it."""
    done = ask(name, f"Summarize in one sentence:\n\n{REVIEW}")
    assert done.model == f"offline:{name}"
    assert done.cost == 0.0
    assert done.finish_reason == "stop"
    assert done.usage.estimated
    assert done.usage.completion_tokens == count_tokens(done.text)
    assert done.usage.prompt_tokens
    assert done.note is not None
    assert done.note.startswith("extractive: ")
    assert "language model" in done.note


def test_an_unknown_agent_is_named_with_the_nearest() -> None:
    """A typing error costs nothing and shows the right name."""
    with pytest.raises(UnknownName, match="textrank"):
        ask("texrank", REVIEW)


def test_central_sentences_win() -> None:
    """What many sentences speak of is chosen before what one mentions."""
    for name in ("textrank", "lexrank", "lsa"):
        points = dict(zip(texts_of(REVIEW), scores(name, read(REVIEW)), strict=True))
        assert points["My cat hates it."] < max(points.values()) / 1.5


def test_what_is_asked_about_is_preferred() -> None:
    """A question over a text picks sentences about its subject."""
    done = ask("lexrank", f"What does the cat think of it? Answer in one sentence.\n\n{REVIEW}\n\n{REVIEW}")
    assert done.text == "My cat hates it."


@pytest.mark.parametrize("name", ALGORITHMS)
def test_near_duplicates_are_not_both_chosen(name: str) -> None:
    """Saying it twice is no reason to say it twice."""
    text = (
        "The battery drains far too quickly. The battery really drains far too quickly! THE BATTERY drains far too quickly. "
        "The screen scratches when you look at it. Shipping to Norway took three weeks."
    )
    chosen = texts_of(ask(name, "Summarize in three sentences", material=text).text)
    assert len(chosen) == 3
    assert sum("drains" in sentence for sentence in chosen) == 1


def test_sentences_that_differ_in_a_number_are_not_duplicates() -> None:
    """'10 hours' and '12 hours' are two facts."""
    text = "The red battery lasts 10 hours in winter. The red battery lasts 12 hours in winter."
    assert ask("lead", "Summarize in two sentences", material=text).text == text


@pytest.mark.parametrize("name", ALGORITHMS)
def test_tables_and_lists_keep_their_form(name: str) -> None:
    """Chosen rows come under their table's head, chosen items on lines of their own."""
    table = "| city | sales |\n|---|---|\n| Oslo | 12 |\n| Bergen | 9 |\n| Tromsø | 4 |"
    rows = ask(name, f"Summarize this table in two lines:\n\n{table}").text.splitlines()
    assert rows[:2] == table.splitlines()[:2]
    assert len(rows) == 4
    assert set(rows) <= set(table.splitlines())
    items = "- the battery is weak\n- the suction is strong\n- the price of the battery is high"
    assert set(ask(name, f"Summarize in 2 lines:\n\n{items}").text.splitlines()) < set(items.splitlines())


ITEMS = (
    "1. The mill closed in May. Forty people lost their work.\n"
    "2. The town bought the mill. Nobody knows what the mill is for.\n"
    "3. The people of the town meet in June."
)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_sentences_of_an_item_are_chosen_one_by_one(name: str) -> None:
    """Of items asked for in sentences come that many, without markers; as bullet points each has its own."""
    units = [unit.text for unit in split(ITEMS)]
    for count in ("two", "three", "four"):
        done = ask(name, f"Summarize in {count} sentences.\n\n{ITEMS}").text
        assert len(texts_of(done)) == {"two": 2, "three": 3, "four": 4}[count]
        assert set(texts_of(done)) <= set(units)
        assert "\n" not in done
    bullets = ask(name, f"Summarize in three bullet points.\n\n{ITEMS}").text.splitlines()
    assert len(bullets) == 3
    assert {bullet.removeprefix("- ") for bullet in bullets} <= set(units)


def test_items_among_prose_flow_with_it() -> None:
    """A marker does not stand inside prose, and a list alone keeps its own."""
    material = f"The board decided three things.\n\n{ITEMS}"
    assert ask("lead", "Summarize in three sentences", material=material).text == (
        "The board decided three things. The mill closed in May. Forty people lost their work."
    )
    assert "1. " not in ask("lead", "Summarize in detail", material=material).text
    assert ask("lead", "Summarize", material=ITEMS).text.startswith("1. The mill closed in May. Forty people")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_lines_that_only_name_are_not_chosen(name: str) -> None:
    """Neither who was there nor a title is a sentence about it, unless it was asked for."""
    head = "Minutes of the board of the mill\nPresent: Imke (mill), Daniel, Rosa and Tom.\nPlace: the mill, Oslo"
    material = f"{head}\n\n{MILL} The board of the mill met in June. Rosa read the accounts of the mill."
    for instruction in ("Summarize in three sentences.", "What did Rosa and Daniel say of the mill? Three sentences."):
        chosen = texts_of(ask(name, f"{instruction}\n\n{material}").text)
        assert len(chosen) == 3
        assert all(sentence not in head for sentence in chosen)
    if name != "lead":
        asked_for = ask(name, f"Who was present? One sentence.\n\n{material}").text
        assert asked_for == "Present: Imke (mill), Daniel, Rosa and Tom."


@pytest.mark.parametrize("name", ALGORITHMS)
def test_texts_without_spaces_are_summarized(name: str) -> None:
    """Chinese and Japanese need neither spaces nor a dictionary."""
    for text in (
        "这款手机的电池能用两天。屏幕也很亮。我家的猫不喜欢它。电池是这款手机最大的优点。价格有点高。",
        "このカメラはとても軽い。電池は二日もつ。猫は嫌いらしい。カメラの電池が一番の長所だ。値段は高い。",
    ):
        done = ask(name, "Summarize in two sentences", material=text)
        assert len(split(done.text)) == 2
        assert all(sentence in text for sentence in texts_of(done.text))


WORDS = st.sampled_from(
    [
        "The",
        "battery",
        "screen",
        "lasts",
        "two",
        "days",
        "and",
        "3.5",
        "hours.",
        "It",
        "broke!",
        "Why?",
        "-",
        "#",
        "|",
        "```",
        "e.g.",
        "Dr.",
        "电池很好。",
        "カメラ。",
        "😀",
        "\n",
        "\n\n",
        "\t",
        "\x00",
        "\u2028",
        "�",
        ">",
        "[x]",
        "1.",
    ]
)
ANY_TEXT = st.one_of(st.text(min_size=1, max_size=300), st.lists(WORDS, min_size=1, max_size=80).map(" ".join)).filter(
    lambda text: bool(text.strip())
)


@given(
    ANY_TEXT,
    st.sampled_from(sorted(ALGORITHMS)),
    st.sampled_from(["", "Summarize", "in one sentence", "in 3 sentences"]),
)
@settings(max_examples=300, deadline=None)
def test_any_text_gets_an_extract(text: str, name: str, instruction: str) -> None:
    """No text makes an agent fail, the answer is never empty, twice the same, and every sentence is the text's own."""
    request = Request(f"offline:{name}", (Message("user", f"{instruction}\n\n{text}"),), material=text)
    done = answer(request)
    assert done.text.strip()
    assert done.text == answer(request).text
    if done.text != text.strip():
        # Where the answer can have been read up to, sentence after sentence of the text in its order.
        left = squeezed(done.text)
        ends = {0}
        for sentence in read(text).sentences:
            for before in ("", squeezed(sentence.lead_in)):
                piece = before + squeezed(sentence.text)
                ends |= {end + len(piece) for end in ends if left.startswith(piece, end)}
        assert len(left) in ends


@given(
    st.permutations(
        [f"Fact {word} stands alone here." for word in ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta"]]
    )
)
@settings(max_examples=40, deadline=None)
def test_reading_order_is_kept(sentences: list[str]) -> None:
    """Whatever the ranks, what stood first is read first."""
    text = " ".join(sentences)
    for name in ALGORITHMS:
        chosen = texts_of(ask(name, "Summarize in three sentences", material=text).text)
        assert chosen == sorted(chosen, key=sentences.index)
        assert set(chosen) <= set(sentences)


def test_threads_agree() -> None:
    """Agents share no state that another thread could see change."""
    texts = [" ".join(texts_of(REVIEW)[start:] * 2) for start in range(4)] * 8
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: ask("consensus", "Summarize", material=text).text, texts))
    assert found == [ask("consensus", "Summarize", material=text).text for text in texts]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_long_texts_are_quick(name: str) -> None:
    """A hundred kilobytes of text are answered while one waits, and only the nearest sentences are compared."""
    words = [
        "battery",
        "screen",
        "price",
        "cable",
        "motor",
        "brush",
        "filter",
        "noise",
        "carpet",
        "floor",
        "switch",
        "charger",
    ]
    text = " ".join(
        f"The {words[n % 12]} of unit {n} has a {words[n * 7 % 11]} and a {words[n * 5 % 7]} of grade {n % 13}."
        for n in range(2200)
    )
    assert len(text) > 100_000
    began = time.thread_time()  # what others do on the machine does not count
    assert ask(name, "Summarize", material=text).text
    assert time.thread_time() - began < 10
    assert len(read(text).compared) == MOST_SENTENCES


# --- consensus


def test_consensus_keeps_what_most_proposals_chose() -> None:
    """Two of three outvote the first, and the reading order is the text's."""
    units = texts_of(REVIEW)
    proposals = (f"{units[3]} {units[5]}", f"{units[1]} {units[3]}", f"{units[3]} {units[5]}")
    done = ask("consensus", "Summarize in two sentences", material=REVIEW, references=proposals)
    assert texts_of(done.text) == [units[3], units[5]]


def test_consensus_decides_ties_by_rank_and_not_by_place() -> None:
    """Where every proposal chose another sentence, the better ranked one is kept, not the first."""
    units = texts_of(REVIEW)
    proposals = (units[0], units[3], units[6])
    done = ask("consensus", "Summarize in one sentence", material=REVIEW, references=proposals)
    assert done.text == units[6]


def test_consensus_takes_proposals_that_were_written_freely() -> None:
    """Answers of language models are candidates too: likeness is their vote, the material orders them."""
    proposals = (
        "The battery is the weak spot of this vacuum. It cleans carpets strongly.",
        "Suction is strong on carpets. The battery is the weak part, however.",
        "Bananas are yellow and grow in bunches. The battery is the weak part of the vacuum cleaner.",
    )
    done = ask("consensus", "Summarize in one sentence", material=REVIEW, references=proposals)
    assert "weak" in done.text
    both = ask("consensus", "Summarize", material=REVIEW, references=proposals)
    assert "Bananas" not in both.text
    assert both.text.index("arpets") < both.text.index("weak")
    assert len(texts_of(both.text)) == 2


def test_consensus_needs_no_material_when_it_has_proposals() -> None:
    """A bare question that others answered can still be brought together."""
    proposals = ("Paris is the capital of France.", "The capital of France is Paris.", "It is Lyon.")
    done = ask("consensus", "What is the capital of France?", references=proposals)
    assert "Paris" in done.text


def test_proposers_hear_votes() -> None:
    """References move a proposer towards what the others chose, and agreement counts them."""
    reading = read(REVIEW)
    units = texts_of(REVIEW)
    shares = agreement(reading, (units[4], units[4], units[3]))
    assert shares[4] == pytest.approx(2 / 3, abs=0.1)
    alone = ask("textrank", "Summarize in one sentence", material=REVIEW).text
    other = next(
        one for one in sorted(units, key=lambda one: -scores("textrank", reading)[units.index(one)]) if one != alone
    )
    led = ask("textrank", "Summarize in one sentence", material=REVIEW, references=(other,) * 4).text
    assert led == other


# --- what else is public


def test_languages_are_told_apart() -> None:
    """Script or commonest words say which language it is."""
    assert language("Der Akku hält nicht lange und das ist schade.") == "de"
    assert language("La batería no dura mucho y es una pena.") == "es"
    assert language("電池は二日もつ。") == "ja"
    assert language("12345") == "en"


def test_tokens_are_estimated() -> None:
    """A token is about four characters of English and one of Chinese; nothing has none."""
    assert count_tokens("") == 0
    assert len(REVIEW) / 5.5 < count_tokens(REVIEW) < len(REVIEW) / 3.5
    assert 18 <= count_tokens("这款手机的电池能用两天。屏幕也很亮。") <= 22
    assert count_tokens("def f(x):\n    return x[0] + 1\n") > len("def f(x):\n    return x[0] + 1\n") / 4


@given(st.text(max_size=200), st.text(max_size=200))
@settings(deadline=None)
def test_token_counts_grow_with_the_text(one: str, other: str) -> None:
    """The count is never negative, and two texts together are about their sum."""
    assert count_tokens(one) >= 0
    assert abs(count_tokens(one + other) - count_tokens(one) - count_tokens(other)) <= 4


def test_the_version_is_a_text() -> None:
    """The cache's key takes it as it is."""
    assert VERSION
    assert set(ALGORITHMS) == {*PROPOSERS, "consensus"}
