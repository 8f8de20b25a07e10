"""Cleaning, and the plain text of Aozora Bunko's annotation."""

from __future__ import annotations

import pytest

from llm_jax.data.aozora import plain_text
from llm_jax.data.clean import Cleaner

FILE = """見本
筆者不明

-------------------------------------------------------
【テキスト中に現れる記号について】

《》：ルビ
（例）漢字《かんじ》
-------------------------------------------------------

［＃５字下げ］一［＃「一」は中見出し］

　彼は急性｜肺炎《はいえん》で歳晩《さいばん》に倒れた。※［＃「口＋世」、U+546D、20-3］※［＃「勹＜夕」、第3水準1-14-76］《ルビ》
　いよ／＼、しみ／″＼と※［＃二の字点、1-2-22］［＃「と」に傍点］。
※［＃始め二重山括弧、1-1-52］強調※［＃終わり二重山括弧、1-1-53］※［＃「不明の字」、12-3］



　［＃ここから２字下げ、［＃「内」の注］折り返して３字下げ］終わり。
［＃改ページ］


底本：「見本全集」見本書房
　　　1999（平成11）年1月1日発行
入力：誰か
"""
PLAIN = """見本
筆者不明

一

　彼は急性肺炎で歳晩に倒れた。呭匇
　いよ〳〵、しみ〴〵と〻。
《強調》〓

　終わり。
"""


def test_aozora_annotation_becomes_plain_text() -> None:
    assert plain_text(FILE) == PLAIN


def test_aozora_text_without_legend_and_colophon_is_kept() -> None:
    assert plain_text("題\n著者\n\n　本文《ほんぶん》。\n") == "題\n著者\n\n　本文。\n"


@pytest.mark.parametrize(
    ("normalize", "after"),
    [("nfc", "ｶﾞＡ①é"), ("nfkc", "ガA1é"), ("none", "ｶﾞＡ①e\u0301")],
)
def test_normal_forms(normalize: str, after: str) -> None:
    assert Cleaner(normalize=normalize).clean("ｶﾞＡ①e\u0301") == after  # type: ignore[arg-type]


def test_line_ends_and_control_characters() -> None:
    assert Cleaner().clean("a\r\nb\rc\n\td\x00\x0c\x1b[0m\x7f\x85\ufeff e") == "a\nb\nc\n\td[0m e"


def test_reasons_to_drop() -> None:
    cleaner = Cleaner(min_chars=5)
    assert cleaner.reason_to_drop(" \n\u3000") == "empty"
    assert cleaner.reason_to_drop("four") == "shorter than 5 characters"
    assert cleaner.reason_to_drop("half \ud83d pair") == "lone surrogates"
    assert cleaner.reason_to_drop("enough") is None
