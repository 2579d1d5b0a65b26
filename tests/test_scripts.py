import pytest

from hf_ftedit.augmentation.leakage import ProbeTexts
from hf_ftedit.augmentation.names import mentions, renamed
from hf_ftedit.data import WORD, EditRecord, Fact
from hf_ftedit.data.readers import _Subjects
from hf_ftedit.scripts import separated

UNSPACED = [
    "法国的首都是",
    "フランスの首都は",
    "ﾌﾗﾝｽ",
    "เมืองหลวงของฝรั่งเศสคือ",
    "ນະຄອນຫຼວງຂອງຝຣັ່ງແມ່ນ",
    "រដ្ឋធានីរបស់បារាំងគឺ",
    "ပြင်သစ်နိုင်ငံ၏ မြို့တော်မှာ",
]


@pytest.mark.parametrize("prompt", UNSPACED)
@pytest.mark.parametrize("end", ["", ":", "：", " (", "“", "。", " 2024", "🏛️"])
def test_no_space_stands_between_words_of_a_script_without_spaces(prompt, end):
    assert separated(prompt + end, "X") == "X"


@pytest.mark.parametrize(
    "prompt",
    [
        *("The capital is", "Столица", "عاصمة فرنسا هي", "בירת צרפת היא", "फ्रांस की राजधानी", "프랑스의 수도는", ""),
        *("عَاصِمَةُ", "צָרְפַת", "cafe\u0301", "👩‍🚀", "2 + 2 ="),
        *("The old name of 北京 is", "北京 is, in 2024:", "法国的首都是 Pari"),
        # Behind whole words, which may look like prefixes, and behind closing marks.
        *("עיר הבירה של", "הטמפרטורה היא", "כל", "מספר 5, זה", "عاصمة اليابان هي", "ایران و", "بل", "كل"),
        *("The Beatles'", "He said 'tell'", "Der Film „Rom“", 'The film "Rome"', "Rome (Italy)", "2 -"),
        *("It is hers, y’all", "The wall", "the number 1", "He’s", "It is called ‘Rome’", "The answer -"),
    ],
)  # fmt: skip
def test_elsewhere_a_space_does(prompt):
    assert separated(prompt, "X") == " X" and separated(prompt, "-5") == " -5"


@pytest.mark.parametrize(
    "prompt",
    [
        *("נולד ב", "ומאז גר ב", "הוא הגיע ל", "נולדה בְּ", "נולד ב-", "נולד ב־", "שמו של האי ה", "הגיע מרומא ול"),
        *("ولد ب", "ينتمي إلى ال", "سافر بال", "وُلِدَ بِ", "عام بـ"),
        *("La capitale est dans l'", "Il vient d’", "On dit qu'", "La capitale dell'", "È un'", "L'"),
        *("The film (", 'It is called "', "It is called “", "Elle dit «", "¿", "Jean-", "from 1990–", "Er heißt „"),
    ],
)
def test_nor_does_one_behind_a_prefix_a_hyphen_or_an_opening_mark(prompt):
    assert separated(prompt, "X") == "X" and separated(prompt, "1949") == "1949"


def test_a_hebrew_prefix_before_a_number_has_a_hyphen_and_no_space():
    assert separated("נולד ב", "-1949") == "-1949"


@pytest.mark.parametrize("text", [" X", "\n\nX", ", in X", ".", "?", ") X", "،"])
def test_white_space_and_the_end_of_a_phrase_stand_as_they_are(text):
    assert separated("The capital is", text) == text == separated("首都是", text)
    assert separated("It is written in", ".NET") == " .NET"


def test_words_are_letters_where_a_script_has_no_spaces():
    assert WORD.findall("iPhone是苹果的, 3G") == ["iPhone", "是", "苹", "果", "的", ",", "3G"]
    assert WORD.findall("Straße_1 привет") == ["Straße_1", "привет"]
    assert "".join(WORD.findall("ที่กรุงเทพฯ")) == "ที่กรุงเทพฯ"


@pytest.mark.parametrize("probe", UNSPACED)
def test_a_probe_inside_a_row_is_seen(probe):
    texts = ProbeTexts([EditRecord("a", "x", "y", paraphrase_prompts=(probe,))])
    assert texts.overlaps(probe) and texts.overlaps(f"请问{probe}") and texts.overlaps(f"请问{probe}什么")
    assert texts.overlaps(probe[1:]) and not texts.overlaps(f"{probe[:2]}X{probe[2:]}")


@pytest.mark.parametrize(
    ("prompt", "subject", "template"),
    [
        ("请问iPhone的制造商是", "iPhone", "请问{}的制造商是"),
        ("日本的首都是", "日本", "{}的首都是"),
        ("กรุงเทพอยู่ในประเทศ", "กรุงเทพ", "{}อยู่ในประเทศ"),
        ("עיר הבירה של צרפת היא", "צרפת", "עיר הבירה של {} היא"),
        ("The iPhones of iPhone are", "iPhone", "The iPhones of {} are"),
    ],
)
def test_subjects_are_found_in_every_script(prompt, subject, template):
    assert Fact(prompt, "x", subject).template == template == renamed(prompt, subject, "{}")
    assert mentions(prompt, subject) and _Subjects([subject, "other"]).in_text(prompt) == subject
