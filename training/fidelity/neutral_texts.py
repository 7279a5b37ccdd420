"""Short neutral texts in several languages, written for this project, to measure what an adapter forgot.

The loss on them with and without the adapter shows how much it damaged the base. None of it is anybody's message.
"""

from doppel.transcript import NO_LOSS, TEXT_LOSS, Transcript
from training.lora.examples import Example

TEXTS = (
    "Water boils at a lower temperature on a mountain than at the coast, because the air above it weighs less. Cooks "
    "who live high up therefore leave their beans on the stove for longer.",
    "A library lends books to anyone who promises to bring them back. The oldest ones chained their volumes to the "
    "desks, since a single copy could cost as much as a house.",
    "To multiply two numbers that end in five, multiply the tens by the next ten, then add twenty-five. So thirty-five "
    "times thirty-five is one thousand two hundred and twenty-five.",
    "The train left the station at noon and crossed the river ten minutes later. From the bridge the passengers could "
    "see the harbour, two lighthouses and a line of grey ships waiting for the tide.",
    "Bees tell each other where flowers are by dancing. The angle of the dance against the vertical is the angle of "
    "the flight against the sun, and its length is the distance.",
    "Please find enclosed the minutes of our last meeting. The budget was approved with two abstentions, and the date "
    "of the next meeting will be announced at the beginning of March.",
    "def largest(numbers):\n    best = numbers[0]\n    for number in numbers[1:]:\n        if number > best:\n"
    "            best = number\n    return best",
    "海水是咸的，因为河流把岩石中的盐分带进大海，水蒸发以后，盐却留了下来。经过亿万年，海里的盐就越来越多。",
    "这座桥建于四百年前，全部用石头砌成，没有用一根钉子。每年春天，河边的柳树发芽，很多人到桥上散步、拍照。",
    "请在收到通知后的十个工作日内提交申请表，并附上身份证明的复印件。逾期未提交的，视为自动放弃。",
    "Das Meer ist salzig, weil die Flüsse Salz aus den Steinen lösen und mit sich führen. Das Wasser verdunstet "
    "wieder, das Salz aber bleibt zurück.",
    "La bibliothèque est ouverte du mardi au samedi, de neuf heures à dix-huit heures. Les livres peuvent être gardés "
    "pendant trois semaines.",
)


def neutral_examples(transcript: Transcript) -> list[Example]:
    """The texts as plain documents, with loss on all tokens but the first."""
    tokenizer = transcript.tokenizer
    bos = tokenizer.bos_token_id
    start = [bos] if isinstance(bos, int) else []
    examples = []
    for text in TEXTS:
        ids = [*start, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        without_loss = max(1, len(start))  # nothing precedes the first token of a row
        loss_mask = [NO_LOSS] * without_loss + [TEXT_LOSS] * (len(ids) - without_loss)
        examples.append(Example(ids, loss_mask, len(text.encode())))
    return examples
