"""Edits in scripts of several kinds, on a real base model that knows them."""

import os
from pathlib import Path

import pytest

from hf_ftedit import EditOptions, EditRecord, measure
from hf_ftedit.data import NeighborhoodPrompt
from hf_ftedit.models import load_model, load_tokenizer

EDITS = {
    "法国的首都是": ("里昂", ["德国的首都是", "日本的首都是", "意大利的首都是", "《红楼梦》的作者是"]),
    "フランスの首都は": ("リヨン", ["ドイツの首都は", "日本の首都は", "富士山の高さは", "トヨタの本社は"]),
    "เมืองหลวงของฝรั่งเศสคือ": ("ลียง", ["เมืองหลวงของเยอรมนีคือ", "เมืองหลวงของญี่ปุ่นคือ", "สูตรเคมีของน้ำคือ"]),
    "عاصمة فرنسا هي": ("ليون", ["عاصمة ألمانيا هي", "عاصمة اليابان هي", "أطول نهر في العالم هو"]),
    "בירת צרפת היא": ("ליון", ["בירת גרמניה היא", "בירת יפן היא", "הנוסחה הכימית של מים היא"]),
    "ပြင်သစ်နိုင်ငံ၏ မြို့တော်မှာ": ("လီယွန်", ["ဂျာမနီနိုင်ငံ၏ မြို့တော်မှာ"]),
}  # fmt: skip


@pytest.mark.parametrize("prompt", EDITS)
def test_the_unedited_model_keeps_its_own_answers(prompt):
    folder = os.environ.get("HF_FTEDIT_REAL_MODELS")
    if not folder:
        pytest.skip("needs gemma3-270m, as ../shared/tools/real_models.py makes it, in HF_FTEDIT_REAL_MODELS")
    name = str(Path(folder) / "gemma3-270m")
    target, neighbors = EDITS[prompt]
    record = EditRecord("a", prompt, target, neighborhood_prompts=tuple(map(NeighborhoodPrompt, neighbors)))
    options = EditOptions(protocol="accuracy")
    measured = measure(load_model(name), load_tokenizer(name), [record], options, drift=False)
    assert measured.scores["locality"] == 100.0
    assert [probe.prompt for probe in measured.records[0].neighborhood_prompts] == neighbors
    # As it is saved and read again, it is measured the same.
    assert EditRecord.from_dict(measured.records[0].to_dict()) == measured.records[0]
