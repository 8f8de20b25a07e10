"""Planted postal addresses are found, and what only looks like one stays."""

from __future__ import annotations

import random

import pytest
from curation_documents import documents

from llm_jax.data.curate.draft import Draft
from llm_jax.data.curate.postal import addresses
from llm_jax.data.curate.steps.pii import MASKS, Pii, masked

NUMBER = 500
TOWNS = (
    "東京都千代田区丸の内", "東京都渋谷区神南", "北海道札幌市中央区北1条西", "大阪府大阪市北区梅田",
    "京都府京都市中京区寺町通御池上る上本能寺前町", "神奈川県横浜市西区みなとみらい",
    "長野県北佐久郡軽井沢町長倉",
    "埼玉県さいたま市浦和区高砂", "沖縄県那覇市おもろまち", "福岡県福岡市博多区博多駅中央街",
    "岩手県盛岡市内丸", "茨城県つくば市天王台", "鹿児島県奄美市名瀬幸町",
    "愛知県 名古屋市中区三の丸",
)  # fmt: skip
STREETS = (
    "Main Street", "N. 5th Ave", "Martin Luther King Jr. Blvd", "Old Mill Rd.", "Park Place NW",
    "County Line Highway", "O'Farrell St",
)  # fmt: skip
CITIES = (
    "Springfield, IL", "New York, NY", "San Francisco, California", "St. Louis, MO",
    "Salt Lake City, UT", "Fort Worth TX",
)  # fmt: skip


def japanese(draw: random.Random) -> str:
    a, b, c = draw.randint(1, 9), draw.randint(1, 29), draw.randint(1, 30)
    town = draw.choice(TOWNS)
    house = draw.choice(
        [f"{a}丁目{b}番{c}号", f"{a}-{b}-{c}", f"{a}丁目{b}-{c}", f"{b}番地", f"{b}番地の{c}",
         "三丁目二番一号", f"{a}－{b}－{c}".translate(FULL), f"{b}-{c}"]
    )  # fmt: skip
    code = f"〒{draw.randint(100, 999)}-{draw.randint(0, 9999):04d}" + draw.choice(["", " ", "\n"])
    room = draw.choice(["", "", f" コーポさくら{c}号室", f" 第一ビル{a}階"]).replace("さくら", "桜")
    return draw.choice(["", code]) + town + house + room


FULL = str.maketrans("0123456789", "０１２３４５６７８９")


def american(draw: random.Random) -> str:
    unit = draw.choice(["", "", f", Apt {draw.randint(1, 40)}B", f" Suite {draw.randint(1, 900)}"])
    place = f"{draw.choice(CITIES)} {draw.randint(501, 99950):05d}"
    street = f"{draw.randint(1, 19999)} {draw.choice(STREETS)}"
    if draw.random() < 0.1:
        street, unit = f"P.O. Box {draw.randint(1, 9999)}", ""
    return f"{street}{unit}{draw.choice([', ', chr(10)])}{place}{draw.choice(['', '-1234'])}"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (japanese, "申込先は、{}です。"),
        (japanese, "住所:{}\n電話番号は次の通り。"),
        (american, "Write to {}, please."),
        (american, "Our office:\n{}\nis open."),
    ],
)
def test_planted_addresses_are_found_and_nothing_around_them(make, sentence: str) -> None:
    draw = random.Random(7)
    wrong = []
    for _ in range(NUMBER):
        planted = make(draw)
        text, found = masked(sentence.format(planted), ("address",), ())
        if text != sentence.format(MASKS["address"]) or found != {"address": 1}:
            wrong.append((planted, text))
    assert wrong == []


@pytest.mark.parametrize(
    "text",
    [
        "横浜市中区山下町1番地にある", "名古屋市中区三の丸三丁目1番2号", "〒600-8216 京都駅前1-2",
        "渋谷区神南1-19-11までの道",
    ],
)  # fmt: skip
def test_an_address_without_its_prefecture_needs_a_full_number_or_a_postal_code(text: str) -> None:
    assert MASKS["address"] in masked(text, ("address",), ())[0]


HARMLESS = (
    "埼玉県さいたま市で行われた試合は3-1で終わった。大阪府大阪市では一番人気の店である。",
    "東京都渋谷区神宮前六丁目で火災があった。横浜市長は2-1で敗れた。〒150-0002は渋谷である。",
    "2019年4-5月に京都府京都市を訪れた。北海道札幌市の人口は1-2%増えた。",
    "千葉県千葉市を3-4回訪れた。兵庫県神戸市は2020-2021年に、長崎県長崎市から1-2時間で着く。",
    "民法第3条第1項1-2-3号。第一番地から歩く。広島市は2-0-1の成績。",
    "In 2019 The Company of New York, NY 10001 moved. 12 Angry Men, Hollywood, CA won.",
    "He lives on Main Street, Springfield, IL. Call 555 1234 St. Louis, MO in 12345 days.",
    "Chapter 12 The Long Road, Book Two, CA 2020. Version 3 Drive, Or 12345",
)


@pytest.mark.parametrize("text", HARMLESS)
def test_towns_scores_and_dates_are_no_addresses(text: str) -> None:
    assert masked(text, ("address",), ())[0] == text


def test_prose_of_two_languages_has_no_address() -> None:
    assert [text for _, text in documents() for _ in addresses(text)] == []


def test_documents_with_addresses_can_be_dropped_and_the_default_leaves_them() -> None:
    text = "本社は東京都千代田区丸の内1-2-3です。支社は大阪府大阪市北区梅田三丁目1番1号です。"
    draft = Draft(text)
    assert [check.holds for check in Pii(kinds=("address",), most=1).check(draft)] == [False]
    assert list(Pii(kinds=("address",)).check(draft)) == []
    assert draft.text == f"本社は{MASKS['address']}です。支社は{MASKS['address']}です。"
    assert draft.edits == {"pii: address": 2}
    assert "address" not in Pii().kinds


@pytest.mark.parametrize(
    "text",
    ["1", "1-", "1-1-", "一", "丁目", "1丁目", "東京都", "東京都千代田区", "市", "〒", "1 A ",
     "1 Main St,\n", "1番", "〒100-0001 ", "P.O. Box 1, A "],
)  # fmt: skip
def test_a_long_run_takes_no_time_that_grows_with_its_square(text: str) -> None:
    list(addresses(text * (100_000 // len(text))))
