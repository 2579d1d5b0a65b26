import pytest

from hf_ftedit.augmentation.names import filled, renamed


@pytest.mark.parametrize(
    ("text", "phrase", "other", "changed"),
    [
        ("Who shot a hat?", "a", "{}", "Who shot {} hat?"),
        ("Who runs Acme or Acmes?", "Acme", "Bo", "Who runs Bo or Acmes?"),
        ("The Red Cross was founded by", "the Red Cross", "the blue moon", "The blue moon was founded by"),
        ("What is {} for?", "{}", "\\1", "What is \\1 for?"),
        ("The king of the Acme", "Acme", "the Netherlands", "The king of the Netherlands"),
        ("Where can I bathe Acme?", "Acme", "the dog", "Where can I bathe the dog?"),
        ("Acme is by the Acme", "Acme", "the Louvre", "The Louvre is by the Louvre"),
        ("Acme's CEO", "Acme", "iPhone", "iPhone's CEO"),
        ("中国的首都", "中国", "日本", "日本的首都"),
        ("Who is a.b?", "a.b", "c", "Who is c?"),
        ("Who is axb?", "a.b", "c", "Who is axb?"),
        ("What does Acme Inc. charge Acme Inc.?", "Acme Inc", "Bo", "What does Bo charge Bo?"),
        ("Who runs Boots' shop?", "Boots", "Sony", "Who runs Sony's shop?"),
        ("Who is Acme’s CEO?", "Acme", "Infosys", "Who is Infosys' CEO?"),
        ("Who sang 'Yes' first?", "Yes", "Help", "Who sang 'Help' first?"),
        ("This is Acme Inc. Who owns it?", "Acme Inc", "Bo", "This is Bo. Who owns it?"),
    ],
)
def test_renamed(text, phrase, other, changed):
    assert renamed(text, phrase, other) == changed


@pytest.mark.parametrize(
    ("template", "phrase", "text"),
    [
        ("{} is led by", "the Red Cross", "The Red Cross is led by"),
        ("{} is led by", "eBay", "eBay is led by"),
        ("Who is {}'s boss?", "Kel Labs", "Who is Kel Labs' boss?"),
        ("Who leads the {}?", "the Red Cross", "Who leads the Red Cross?"),
        ("Who leads {}?", "{}\\1", "Who leads {}\\1?"),
        ("When is {} due?", "expense reports", "When are expense reports due?"),
        ("Does {} cost much?", "expense reports", "Do expense reports cost much?"),
        ("Is {} open?", "you", "Are you open?"),
    ],
)
def test_filled(template, phrase, text):
    assert filled(template, phrase) == text
