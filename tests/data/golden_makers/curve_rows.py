"""The rows of the loss curves, one class for each head, and the order in which the steps take them."""

import torch

from golden_makers import common

ROWS, BINS, VOCABULARY = 64, 32, 256
PAD, END = 0, 2
STEPS, BATCH = 50, 16


def make_order():
    """[STEPS][BATCH] row indices: permutations of all rows, one after the other."""
    random = common.generator("curves/order")
    epochs = -(-STEPS * BATCH // ROWS)
    order = torch.cat([torch.randperm(ROWS, generator=random) for _ in range(epochs)])
    return order[: STEPS * BATCH].reshape(STEPS, BATCH).tolist()


def make_prompts(name):
    random = common.generator(name)
    lengths = torch.randint(2, 41, (ROWS,), generator=random).tolist()
    return [torch.randint(common.FIRST_PLAIN_ID, VOCABULARY, (n,), generator=random) for n in lengths]


def offsets(ids):
    return torch.tensor([0, *[len(row) for row in ids]]).cumsum(0)


class TokenRows:
    """Prompts with a completion of up to four of ten ids and the end token; the completion alone is trained."""

    head, task, bins = "token", "CAUSAL_LM", 0

    def __init__(self):
        random = common.generator("curves/completions")
        prompts = make_prompts("curves/token-rows")
        sizes = torch.randint(0, 5, (ROWS,), generator=random).tolist()
        digits = [torch.randint(common.FIRST_PLAIN_ID, common.FIRST_PLAIN_ID + 10, (n,), generator=random) for n in sizes]
        self.prompt_lengths = [len(prompt) for prompt in prompts]
        self.ids = [torch.cat([*parts, torch.tensor([END])]) for parts in zip(prompts, digits)]
        assert {self.count(row) for row in range(ROWS)} == set(range(1, 6))

    def tensors(self):
        return {
            "ids": torch.cat(self.ids).int(),
            "offsets": offsets(self.ids),
            "prompt_lengths": torch.tensor(self.prompt_lengths),
        }

    def count(self, row):
        """Target tokens."""
        return len(self.ids[row]) - self.prompt_lengths[row]

    def loss_sum(self, model, row):
        """Over the target tokens of one unpadded row."""
        ids, begin = self.ids[row], self.prompt_lengths[row]
        logits = model(input_ids=ids.unsqueeze(0)).logits[0]
        return torch.nn.functional.cross_entropy(logits[begin - 1 : -1], ids[begin:], reduction="sum")


class BinsRows:
    """Prompts, and targets as the trainer makes them: a bell over the bins around a place that the ids decide."""

    head, task, bins = "bins", "SEQ_CLS", BINS

    def __init__(self):
        self.ids = make_prompts("curves/rows")
        centre = torch.stack([row.double().mean() for row in self.ids])
        centre = 4 + (BINS - 8) * (centre - centre.min()) / (centre.max() - centre.min())
        bell = torch.exp(-0.5 * ((torch.arange(BINS).double() + 0.5 - centre.unsqueeze(1)) / 0.75) ** 2)
        self.targets = (bell / bell.sum(1, keepdim=True)).float()

    def tensors(self):
        return {"ids": torch.cat(self.ids).int(), "offsets": offsets(self.ids), "targets": self.targets}

    def count(self, row):
        return 1

    def loss_sum(self, model, row):
        logits = model(input_ids=self.ids[row].unsqueeze(0)).logits
        return torch.nn.functional.cross_entropy(logits, self.targets[row : row + 1], reduction="sum")
