"""Made-up product text, and lines that are hard for tokenizers. Same seed, same text."""

import random

BRANDS = "Norvik Abelson Tarn Quillo Brightwell Hearthstone Zephyra Oakline Vantix Marlo Kestrel Pinnock".split()
ADJECTIVES = "stainless compact heavy-duty waterproof wireless organic foldable vintage ergonomic professional".split()
NOUNS = (
    "kettle|backpack|drill|desk lamp|running shoes|olive oil|keyboard|water bottle|yoga mat|garden hose|phone case|"
    "coffee grinder|tent|wool blanket|screwdriver set|bluetooth speaker|cutting board|bike light"
).split("|")
MATERIALS = "steel aluminium bamboo cotton leather ceramic glass nylon oak rubber".split()
UNITS = "ml oz cm mm kg g lb in inch L W V mAh GB".split()
CATEGORIES = "Kitchen|Sports & Outdoors|Tools|Office|Home > Bedding|Electronics|Grocery|Toys/Games".split("|")
PHRASES = (
    "It's built to last and doesn't rust.|Fits most models (see the chart).|You'll love it; we're sure!|"
    "Dishwasher-safe, BPA-free.|Includes: 2x AA batteries, manual.|RRP £24.50 - now only £19.95|Ships in 3-5 days.|"
    "Don't use bleach.|MADE IN PORTUGAL|Item no. 00417-B/2|100% recycled|Up to 1,250 W / 220-240 V~|No.1 choice since 1987"
).split("|")
WORLD = (
    "Café crème brûlée à emporter|Größe: über 30 cm, weiß|Piñata niño año 2024|Łódź źdźbło|naïve coöperation façade|"
    "電気ケトル 1.2L ステンレス|不锈钢水壶 500毫升 包邮|무선 블루투스 스피커|Электрический чайник 1,7 л|غلاية كهربائية ١٫٧ لتر|"
    "กาต้มน้ำไฟฟ้า|विद्युत केतली २ लीटर|קומקום חשמלי|Ηλεκτρικός βραστήρας|Phích nước điện giá rẻ|İstanbul ılık Çay"
).split("|")
SYMBOLS = "☕|🔥🔥🔥|👨‍👩‍👧‍👦|🇩🇪🇯🇵|👍🏽|😀😃|™®©|½ ¾ ⅓|→ ★ ✓|㎖ ㎏|№ 5|𝔘𝔫𝔦|🏳️‍🌈|e\u0301 a\u0308|\ufb01lter|Å Å|①②③".split("|")
SPACES = ["  ", "    ", "\t", "\t\t ", "\u00a0", "\u2003", "\u200b", "\u3000", " \n", "\n", "\n\n", "\r\n", "\n  \n", "\v", "\f", "\u2028"]
CONTROLS = ["\x00", "\x01", "\x07", "\x08", "\x1b[31m", "\x7f", "\x85", "\ufeff", "\u202e", "\u00ad", "\ufffd", "\ue000", "\U0010fffe", "\U000e0041"]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|begin_of_text|>", "<s>", "</s>", "<unk>", "<|eot_id|>", "<0x0A>", "▁"]


def price(rng):
    form = rng.choice(["${:.2f}", "${:.0f}", "{:.2f} USD", "€{:.2f}", "{:,.2f}", "Price: ${:.0f}", "£{:.2f}"])
    return form.format(10 ** rng.uniform(-1, 5))


def size(rng):
    return f"{rng.choice([rng.randint(1, 2000), round(rng.uniform(0.1, 99), 1)])}{rng.choice(['', ' '])}{rng.choice(UNITS)}"


def product(rng):
    lines = [
        f"{rng.choice(BRANDS)} {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} {size(rng)}",
        f"{rng.choice(CATEGORIES)}",
        f"{rng.choice(PHRASES)} {rng.choice(MATERIALS)}, {size(rng)} x {size(rng)}, pack of {rng.randint(1, 48)}",
        f"{rng.choice(ADJECTIVES).title()} {rng.choice(NOUNS).upper()} - {price(rng)}",
    ]
    return rng.choice(["\n", " | ", " "]).join(rng.sample(lines, rng.randint(1, 3)))


def digits(rng):
    run = "".join(rng.choice("0123456789") for _ in range(rng.randint(1, 40)))
    return rng.choice(["{}", "EAN {}", "a  {}", "\n\n{}", "{}x{}", "-{}", "1{}.{}", " {}", "v{}rc{}"]).format(run, run[:3])


def spaces(rng):
    words = [rng.choice(["", "a", "steel", "Pack", "12", "!", "é"]) for _ in range(rng.randint(1, 6))]
    return "".join(word + rng.choice(SPACES) for word in words)


def mixed(rng):
    parts = [rng.choice(WORLD), rng.choice(SYMBOLS), price(rng), rng.choice(NOUNS), rng.choice(PHRASES)]
    rng.shuffle(parts)
    return rng.choice([" ", "", ", "]).join(parts[: rng.randint(1, 3)])


def controls(rng):
    return product(rng)[: rng.randint(0, 12)] + rng.choice(CONTROLS) * rng.randint(1, 3) + rng.choice(["", "x", " 7"])


def specials(rng):
    return rng.choice(["", "a", "a ", "\n"]) + rng.choice(SPECIALS) + rng.choice(["", "b", " b", "\n", rng.choice(SPECIALS)])


def code_points(rng):
    def one():
        while True:
            code = rng.choice([rng.randint(0x20, 0x7E), rng.randint(0x80, 0x2FFF), rng.randint(0x3000, 0x10FFFF)])
            if not 0xD800 <= code <= 0xDFFF:
                return chr(code)

    return "".join(one() for _ in range(rng.randint(1, 12)))


def words(rng):
    letters = "".join(rng.choice("aeinorstlLMxyz'-_") for _ in range(rng.randint(1, 30)))
    return letters + rng.choice(["", "'S", "'ll", "'RE ", "n't.", "...", "?!", "://shop.example/item?id=7&q=a%20b", "ÉÈ", "ßa"])


FIXED = ["149 999 1499 kettleware Price qzx", "", " ", "\n", "0", "$", "\x00", "Price: $", "What is a fair price for this product, in whole US dollars?\n\n", "a" * 300, "9" * 120, " " * 60]
KINDS = [(product, 46), (mixed, 16), (digits, 10), (spaces, 8), (controls, 6), (specials, 3), (code_points, 5), (words, 6)]


def lines(count, seed):
    rng = random.Random(seed)
    makers, weights = zip(*KINDS)
    made = [maker(rng) for maker in rng.choices(makers, weights, k=count - len(FIXED))]
    made += FIXED
    rng.shuffle(made)
    return made


def corpus(count, seed):
    rng = random.Random(seed)
    return [product(rng) if i % 4 else mixed(rng) for i in range(count)]
