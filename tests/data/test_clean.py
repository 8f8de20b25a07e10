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
ACCENTS = [
    ("〔fe^te〕", "fête"),
    ("〔｜Cafe'《カフエ》 Atlantis《アトランチス》〕の", "Café Atlantisの"),
    ("〔Be'la Bala'zs : Film〕", "Béla Balázs : Film"),
    ("〔pour l'accumuler e'perdument〕", "pour l'accumuler éperdument"),
    ("〔jusqu'a` demain, qu'il a e'te'〕", "jusqu'à demain, qu'il a été"),
    ("〔Genus&mensch oe&uvre AE&on ae& OE&〕", "Genußmensch œuvre Æon æ Œ"),
    ("〔Franc,ais, C,a〕", "Français, Ça"),
    ("〔A&ngstro:m O/re so/n〕", "Ångström Øre søn"),
    ("〔Kyo_to man~ana Sa~o aigue: ny:r y'〕", "Kyōto mañana São aiguë nÿr ý"),
    ("〔?@Que' tal!@〕", "¿Qué tal¡"),
    ("〔中略〕", "〔中略〕"),
    ("〔〕", "〔〕"),
    ("〔A: and, a, b, c, d〕", "〔A: and, a, b, c, d〕"),
    ("fe^te, e'", "fe^te, e'"),
    ("〔二字伏字〕〔e'〕〔欠〕", "〔二字伏字〕é〔欠〕"),
]
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


@pytest.mark.parametrize(("written", "meant"), ACCENTS)
def test_accents_are_composed_and_editorial_brackets_stay(written: str, meant: str) -> None:
    assert plain_text(written) == meant + "\n"


def test_every_accent_of_the_notation() -> None:
    """The 72 letters of Aozora Bunko's table, by mark."""
    table = {
        "`": ("AEIOUaeiou", "ÀÈÌÒÙàèìòù"),
        "'": ("AEIOUYaeiouy", "ÁÉÍÓÚÝáéíóúý"),
        "^": ("AEIOUaeiou", "ÂÊÎÔÛâêîôû"),
        "~": ("ANOano", "ÃÑÕãñõ"),
        ":": ("AEIOUaeiouy", "ÄËÏÖÜäëïöüÿ"),
        "_": ("AEIOUaeiou", "ĀĒĪŌŪāēīōū"),
    }
    for mark, (letters, meant) in table.items():
        written = "".join(letter + mark for letter in letters)
        assert plain_text(f"〔x{written}x〕") == f"x{meant}x\n"


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
    assert cleaner.reason_to_drop("enough") is None
