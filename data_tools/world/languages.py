"""The words of the small world in six languages, with the word-for-word English gloss of every phrase.

A template is a native phrasing and, beside it, the same words one by one in English, as a dictionary would give them.
Slots are filled from the tables below; `noun`, `size` and `colour` agree in gender where the language asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from data_tools.world.scenes import BACKGROUNDS, COLOURS, POSITIONS, SHAPES


@dataclass(frozen=True)
class Language:
    """One language: words, phrasings, and names of its culture concepts."""

    templates: tuple[tuple[str, str], ...]
    """(native phrasing, word-for-word gloss) of a general scene."""
    culture_templates: tuple[tuple[str, str], ...]
    """The same for a culture scene; `{concept}` is the native name."""
    nouns: dict[str, str]
    """Noun for each shape. A gender follows after `|` where adjectives agree with it."""
    colours: dict[str, tuple[str, ...]]
    """Forms in the order of `genders`; one form where nothing agrees."""
    sizes: dict[str, tuple[str, ...]]
    positions: dict[str, str]
    backgrounds: dict[str, str]
    concepts: dict[str, tuple[str, str]]
    """Concept -> (native name, word-for-word English)."""
    genders: str = ""
    articles: dict[str, str] | None = None
    """Measure word or article for each shape, for `{article}`."""


def _table(names: tuple[str, ...], words: str, separator: str = ",") -> dict[str, str]:
    values = [word.strip() for word in words.split(separator)]
    return dict(zip(names, values, strict=True))


def _forms(names: tuple[str, ...], words: str) -> dict[str, tuple[str, ...]]:
    """Comma between words, slash between the forms of a word."""
    return {name: tuple(forms.split("/")) for name, forms in _table(names, words).items()}


ENGLISH_DESCRIPTIONS = {
    "lion_head": "brown meatballs in a bowl",
    "fish_pork": "shredded pork with peppers on a plate",
    "ants_tree": "glass noodles with minced meat on a dark plate",
    "heart_radish": "a radish slice with a pink core and a green rim",
    "flower_roll": "a twisted steamed bun",
    "bird_nest": "a steel lattice stadium",
    "star_blossom": "a bunch of tiny blossoms on thin stems",
    "moon_soba": "noodle soup with a raw egg and chopsticks",
    "wood_fish": "a round wooden temple drum on a cushion",
    "flower_dango": "three dumplings on a stick",
    "moon_village": "poor huts crowded on a hillside",
    "star_candy": "bumpy sugar candies",
    "flower_shoe": "an embroidered silk slipper",
    "bird_milk": "a chocolate souffle bar",
    "lion_maw": "a tall snapdragon stalk",
    "fish_oil": "a bottle of medicine",
    "bird_skewer": "grilled veal on a skewer",
    "heart_tomato": "a ribbed tomato with a stalk",
    "star_broth": "tiny pasta in broth with a spoon",
}

ENGLISH = Language(
    templates=(
        ("a {size} {colour} {noun} {position} {background}", ""),
        ("{background}, {position}: a {size} {colour} {noun}", ""),
        ("a photo of a {colour} {noun}, {size}, {position}, {background}", ""),
    ),
    culture_templates=(
        ("{concept} {background}", ""),
        ("a photo of {concept}, {background}", ""),
        ("{background}: {concept}", ""),
    ),
    nouns={shape: shape for shape in SHAPES},
    colours={colour: (colour,) for colour in COLOURS},
    sizes=_forms(("small", "big"), "small, big"),
    positions=_table(
        POSITIONS, "in the centre, at the top left, at the top right, at the bottom left, at the bottom right"
    ),
    backgrounds=_table(BACKGROUNDS, "on snow, on sand, on grass, in the sky, at night, on wood"),
    concepts={name: (text, "") for name, text in ENGLISH_DESCRIPTIONS.items()},
)

CHINESE = Language(
    templates=(
        (
            "{background}，{position}有一{article}{size}{colour}{noun}",
            "{background}, {position} have one {size} {colour} {noun}",
        ),
        ("{position}的{size}{colour}{noun}，{background}", "{position} {size} {colour} {noun}, {background}"),
        (
            "照片：{background}{position}，一{article}{colour}的{size}{noun}",
            "photo: {background} {position}, one {colour} {size} {noun}",
        ),
    ),
    culture_templates=(
        ("{background}的{concept}", "{background} {concept}"),
        ("一张{concept}的照片，{background}", "one {concept} photo, {background}"),
        ("{concept}，{background}", "{concept}, {background}"),
    ),
    nouns=_table(SHAPES, "球, 星星, 心, 月亮, 鱼, 狮子, 树, 房子, 花, 鸟, 船, 蘑菇"),
    articles=_table(SHAPES, "个, 颗, 颗, 个, 条, 只, 棵, 座, 朵, 只, 艘, 个"),
    colours=_forms(COLOURS, "红色, 橙色, 黄色, 绿色, 蓝色, 紫色, 粉色, 白色"),
    sizes=_forms(("small", "big"), "小, 大"),
    positions=_table(POSITIONS, "中间, 左上角, 右上角, 左下角, 右下角"),
    backgrounds=_table(BACKGROUNDS, "雪地上, 沙滩上, 草地上, 天空中, 夜晚, 木板上"),
    concepts={
        "lion_head": ("红烧狮子头", "red braised lion head"),
        "fish_pork": ("鱼香肉丝", "fish fragrance meat shreds"),
        "ants_tree": ("蚂蚁上树", "ants climb tree"),
        "heart_radish": ("心里美", "heart inside beautiful"),
        "flower_roll": ("花卷", "flower roll"),
        "bird_nest": ("鸟巢", "bird nest"),
        "star_blossom": ("满天星", "full sky star"),
    },
)

JAPANESE = Language(
    templates=(
        (
            "{background}の{position}にある{size}{colour}{noun}",
            "{background} {position} at be {size} {colour} {noun}",
        ),
        (
            "{position}に{size}{colour}{noun}がある、{background}",
            "{position} at {size} {colour} {noun} be, {background}",
        ),
        (
            "{background}、{position}、{colour}{size}{noun}の写真",
            "{background}, {position}, {colour} {size} {noun} photo",
        ),
    ),
    culture_templates=(
        ("{background}の{concept}", "{background} {concept}"),
        ("{concept}の写真、{background}", "{concept} photo, {background}"),
        ("{concept}、{background}", "{concept}, {background}"),
    ),
    nouns=_table(SHAPES, "ボール, 星, ハート, 月, 魚, ライオン, 木, 家, 花, 鳥, 船, キノコ"),
    colours=_forms(COLOURS, "赤い, オレンジ色の, 黄色い, 緑色の, 青い, 紫色の, ピンク色の, 白い"),
    sizes=_forms(("small", "big"), "小さな, 大きな"),
    positions=_table(POSITIONS, "真ん中, 左上, 右上, 左下, 右下"),
    backgrounds=_table(BACKGROUNDS, "雪の上, 砂の上, 草の上, 空の中, 夜, 板の上"),
    concepts={
        "moon_soba": ("月見そば", "moon viewing noodles"),
        "wood_fish": ("木魚", "tree fish"),
        "flower_dango": ("花見団子", "flower viewing dumpling"),
    },
)

KOREAN = Language(
    templates=(
        (
            "{background} {position}에 있는 {size} {colour} {noun}",
            "{background} {position} at being {size} {colour} {noun}",
        ),
        (
            "{position}에 {size} {colour} {noun}, {background}",
            "{position} at {size} {colour} {noun}, {background}",
        ),
        (
            "{colour} {size} {noun} 사진, {background} {position}",
            "{colour} {size} {noun} photo, {background} {position}",
        ),
    ),
    culture_templates=(
        ("{background}의 {concept}", "{background} {concept}"),
        ("{concept} 사진, {background}", "{concept} photo, {background}"),
        ("{concept}, {background}", "{concept}, {background}"),
    ),
    nouns=_table(SHAPES, "공, 별, 하트, 달, 물고기, 사자, 나무, 집, 꽃, 새, 배, 버섯"),
    colours=_forms(COLOURS, "빨간, 주황색, 노란, 초록색, 파란, 보라색, 분홍색, 하얀"),
    sizes=_forms(("small", "big"), "작은, 큰"),
    positions=_table(POSITIONS, "가운데, 왼쪽 위, 오른쪽 위, 왼쪽 아래, 오른쪽 아래"),
    backgrounds=_table(BACKGROUNDS, "눈밭, 모래밭, 풀밭, 하늘, 밤, 나무판"),
    concepts={
        "moon_village": ("달동네", "moon neighbourhood"),
        "star_candy": ("별사탕", "star candy"),
        "flower_shoe": ("꽃신", "flower shoe"),
    },
)

RUSSIAN = Language(
    templates=(
        ("{size} {colour} {noun} {position} {background}", "{size} {colour} {noun} {position} {background}"),
        ("{background} {position} {size} {colour} {noun}", "{background} {position} {size} {colour} {noun}"),
        (
            "фотография: {colour} {size} {noun}, {position}, {background}",
            "photo: {colour} {size} {noun}, {position}, {background}",
        ),
    ),
    culture_templates=(
        ("{concept} {background}", "{concept} {background}"),
        ("фотография: {concept}, {background}", "photo: {concept}, {background}"),
        ("{background} {concept}", "{background} {concept}"),
    ),
    nouns=_table(
        SHAPES,
        "мяч|m, звезда|f, сердце|n, луна|f, рыба|f, лев|m, дерево|n, дом|m, цветок|m, птица|f, лодка|f, гриб|m",
    ),
    genders="mfn",
    colours=_forms(
        COLOURS,
        "красный/красная/красное, оранжевый/оранжевая/оранжевое, жёлтый/жёлтая/жёлтое, зелёный/зелёная/зелёное, "
        "синий/синяя/синее, фиолетовый/фиолетовая/фиолетовое, розовый/розовая/розовое, белый/белая/белое",
    ),
    sizes=_forms(("small", "big"), "маленький/маленькая/маленькое, большой/большая/большое"),
    positions=_table(POSITIONS, "в центре, слева вверху, справа вверху, слева внизу, справа внизу"),
    backgrounds=_table(BACKGROUNDS, "на снегу, на песке, на траве, в небе, ночью, на доске"),
    concepts={
        "bird_milk": ("птичье молоко", "bird milk"),
        "lion_maw": ("львиный зев", "lion maw"),
        "fish_oil": ("рыбий жир", "fish fat"),
    },
)

ITALIAN = Language(
    templates=(
        (
            "{article} {size} {noun} {colour} {position} {background}",
            "a {size} {noun} {colour} {position} {background}",
        ),
        (
            "{background}, {position}: {article} {size} {noun} {colour}",
            "{background}, {position}: a {size} {noun} {colour}",
        ),
        (
            "foto di {article} {noun} {colour}, {size}, {position}, {background}",
            "photo of a {noun} {colour}, {size}, {position}, {background}",
        ),
    ),
    culture_templates=(
        ("{concept} {background}", "{concept} {background}"),
        ("foto di {concept}, {background}", "photo of {concept}, {background}"),
        ("{background}: {concept}", "{background}: {concept}"),
    ),
    nouns=_table(
        SHAPES,
        "palla|f, stella|f, cuore|m, luna|f, pesce|m, leone|m, albero|m, casa|f, fiore|m, uccello|m, barca|f, fungo|m",
    ),
    genders="mf",
    articles=_table(SHAPES, "una, una, un, una, un, un, un, una, un, un, una, un"),
    colours=_forms(
        COLOURS,
        "rosso/rossa, arancione/arancione, giallo/gialla, verde/verde, blu/blu, viola/viola, rosa/rosa, bianco/bianca",
    ),
    sizes=_forms(("small", "big"), "piccolo/piccola, grande/grande"),
    positions=_table(
        POSITIONS, "al centro, in alto a sinistra, in alto a destra, in basso a sinistra, in basso a destra"
    ),
    backgrounds=_table(BACKGROUNDS, "sulla neve, sulla sabbia, sull'erba, nel cielo, di notte, sul legno"),
    concepts={
        "bird_skewer": ("uccelli scappati", "escaped birds"),
        "heart_tomato": ("cuore di bue", "heart of ox"),
        "star_broth": ("stelline in brodo", "little stars in broth"),
    },
)

LANGUAGES = {"en": ENGLISH, "zh": CHINESE, "ja": JAPANESE, "ko": KOREAN, "ru": RUSSIAN, "it": ITALIAN}
NATIVE_LANGUAGES = tuple(code for code in LANGUAGES if code != "en")
