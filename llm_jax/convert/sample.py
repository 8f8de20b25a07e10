"""Text in English, Japanese and code that tokenizers and models are compared on."""

SAMPLE = """\
A language model assigns a probability to every text. It reads from left to right and says, at each
position, which token it expects next; training lowers its surprise over a large corpus.
吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。「東京」まで 123 キロ、約２時間。
def mean(values: list[float]) -> float:
    if not values:
        raise ValueError("mean of nothing")
    return sum(values) / len(values)  # O(n)
Ünïcödé, 100% – “quotes”, 3.14159, tab\there, \U0001f600, and the end.
"""
