"""Whole-dollar price distributions after a prompt that ends in "$", by enumeration of every price from 0 to 999."""

import torch
from transformers import AutoTokenizer

from golden_makers import common, models, tokenizer_files

PRICES = 1000
QUESTION = "What is a fair price for this product, in whole US dollars?"
PROMPTS = [
    "Price: $",
    f"{QUESTION}\n\nSteel kettle, 1.7 l\n\nPrice: $",
    f"{QUESTION}\n\nCordless drill with two batteries\nBosch\nTools\n18 V, 2.0 Ah, 13 mm chuck, case\n\nPrice: $",
    f"{QUESTION}\n\nOak dining table\nNordhem\nFurniture\n" + "Solid oak, oiled, seats six to eight people. " * 3 + "\n\nPrice: $",
]
SHAPE = {"max_position_embeddings": 512, **models.shape(32, 4, 2, 64)}


def digits_model(tokenizer):
    """A random model hardly ever says a digit. In this one coordinate 0 is the same for all tokens and no layer writes to it, so
    that column 0 of the head acts as a bias: for the digits, and for the comma that may follow them."""
    options = {**SHAPE, **special_ids(tokenizer), "vocab_size": len(tokenizer), "initializer_range": 0.25}
    model = models.random_model("token_prices/digits", options)
    head = model.lm_head.weight
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 6.0
        model.model.norm.weight[0] = 1.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0.0
            layer.mlp.down_proj.weight[0] = 0.0
        head[:, 0] = 0.0
        head[digit_ids(tokenizer), 0] = 3.0
        head[tokenizer.convert_tokens_to_ids(","), 0] = 2.2
    return model


def whole_model(tokenizer):
    options = {**SHAPE, **special_ids(tokenizer), "vocab_size": len(tokenizer), "initializer_range": 0.4}
    return models.random_model("token_prices/whole", {**options, "tie_word_embeddings": True})


def special_ids(tokenizer):
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {name: getattr(tokenizer, name) for name in names}


def llama3_of_all_prices():
    return tokenizer_files.llama3([*tokenizer_files.WHOLE_PIECES, *(str(n) for n in range(PRICES))])


def digit_ids(tokenizer):
    return tokenizer.convert_tokens_to_ids([str(digit) for digit in range(10)])


def continuation(tokenizer, prompt, text):
    """The ids that `text` adds to those of the prompt."""
    ids, whole = tokenizer(prompt)["input_ids"], tokenizer(prompt + text)["input_ids"]
    assert whole[: len(ids)] == ids, (prompt, text)
    return whole[len(ids) :]


def next_probabilities(model, sequences):
    """[sequences, V] fp64: of the token after each, softmax of the fp32 logits. All have one length."""
    with torch.no_grad():
        return torch.softmax(model(torch.tensor(sequences)).logits[:, -1].double(), dim=-1)


def enumerate_digits(model, tokenizer, prompt):
    """Walks all contexts of up to three digits: what may be said next is another digit, a comma, or the end of the price."""
    digits, (comma,) = digit_ids(tokenizer), set(continuation(tokenizer, prompt, f"{n},")[-1] for n in range(10))
    ids = tokenizer(prompt)["input_ids"]
    prices, overflow = torch.zeros(PRICES, dtype=torch.float64), 0.0
    first = next_probabilities(model, [ids])[0]
    not_a_price = 1 - first[digits].sum()
    reached = {n: first[digits[n]] for n in range(10)}
    while reached:
        contexts = {n: continuation(tokenizer, prompt, str(n)) for n in reached}
        assert all(context == [digits[int(c)] for c in str(n)] for n, context in contexts.items())
        following = next_probabilities(model, [ids + context for context in contexts.values()])
        deeper = {}
        for (n, mass), after in zip(reached.items(), following):
            any_digit = after[digits].sum()
            prices[n] = mass * (1 - any_digit - after[comma])
            overflow += mass * after[comma]
            if n == 0:
                not_a_price += mass * any_digit
            elif n >= 100:
                overflow += mass * any_digit
            else:
                deeper.update({10 * n + digit: mass * after[digits[digit]] for digit in range(10)})
        reached = deeper
    check_in_one_pass(model, ids, digits, comma, prices)
    return prices, overflow, not_a_price


def check_in_one_pass(model, ids, digits, comma, prices):
    """Some of the prices again, each from the logits along one sequence."""
    for n in range(0, PRICES, 37):
        price = [digits[int(c)] for c in str(n)]
        with torch.no_grad():
            logits = model(torch.tensor([ids + price])).logits[0, len(ids) - 1 :]
        steps = torch.softmax(logits.double(), dim=-1)
        mass = torch.stack([step[token] for step, token in zip(steps, price)]).prod()
        expected = mass * (1 - steps[-1, digits].sum() - steps[-1, comma])
        assert (prices[n] - expected).abs() <= 1e-5 * expected, n


def enumerate_whole(model, tokenizer, prompt):
    """Every price is one token; any other token is no price."""
    price_ids = [token for n in range(PRICES) for token in continuation(tokenizer, prompt, str(n))]
    assert len(set(price_ids)) == PRICES
    prices = next_probabilities(model, [tokenizer(prompt)["input_ids"]])[0, price_ids]
    return prices, torch.zeros((), dtype=torch.float64), 1 - prices.sum()


# name: (tokenizer, model, enumeration)
VARIANTS = {
    "digits": (tokenizer_files.smollm, digits_model, enumerate_digits),
    "whole": (llama3_of_all_prices, whole_model, enumerate_whole),
}


def check_alive(name, tensors):
    """All masses are there, and no price has it all."""
    prices, overflow, not_a_price = tensors["probabilities"], tensors["overflow"], tensors["not_a_price"]
    total = prices.sum(1) + overflow + not_a_price
    assert (total - 1).abs().max() < 1e-12 and prices.min() > 0, name
    assert prices.max() < 0.5 and prices.sum(1).min() > 0.2 and not_a_price.min() > 0.02, name
    assert name == "whole" or overflow.min() > 0.02, name


def make_variant(root, name, build, make_model, enumerate_prices):
    folder = common.fresh_folder(root / name)
    tokenizer_files.write_tokenizer(folder, *build())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    make_model(tokenizer).save_pretrained(folder)
    model = models.load(folder, dtype=torch.float32)
    rows = [enumerate_prices(model, tokenizer, prompt) for prompt in PROMPTS]
    tensors = {key: torch.stack(column) for key, column in zip(("probabilities", "overflow", "not_a_price"), zip(*rows))}
    check_alive(name, tensors)
    ids = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    common.write_json(folder / "golden.json", {"prompts": PROMPTS, "ids": ids})
    common.write_tensors(folder / "golden.safetensors", {key: value.float() for key, value in tensors.items()})


def make(output):
    root = common.fresh_folder(output / "token_prices")
    for name, variant in VARIANTS.items():
        make_variant(root, name, *variant)
