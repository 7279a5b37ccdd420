"""What the figures of a report are called for people."""

from doppel.i18n import tr
from training.fidelity.best_of import COUNT


def title_of(name: str) -> str:
    """What a figure is called; one that goes into detail about the one before it begins with dots."""
    return {**_main(), **_details(), **_habits()}.get(name, name)


def title_of_check(name: str) -> str:
    """What a goal or a check of the gate is called; in English as in its JSON."""
    return {
        "bits per byte against the base": tr("bits per byte against the base"),
        "bits per byte against the base with a prompt": tr("bits per byte against the base with a prompt"),
        "improvement on others over improvement on the owner": tr(
            "improvement on others over improvement on the owner"
        ),
        "choice among four": tr("choice among four"),
        "choice among three, strangers' distractors": tr("choice among three, strangers' distractors"),
        "distance of habits over the prompted base's": tr("distance of habits over the prompted base's"),
        "specificity": tr("specificity"),
        "recited beyond the owner's own repeating": tr("recited beyond the owner's own repeating"),
    }.get(name, name)


def _main() -> dict[str, str]:
    return {
        "bits_per_byte": tr("bits per byte of your unseen messages"),
        "bits_per_byte_prompted": tr("… of the base model with a prompt"),
        "bits_change": tr("… change against the base (floor: on others' messages)"),
        "specificity": tr("how much more it learned you than others"),
        "choice": tr("finds your reply among four"),
        "choice_others": tr("… among three, the others by strangers"),
        "two_sample_auc": tr("a classifier tells it from you (0.5: cannot)"),
        "two_sample_auc_matched": tr("… at equal lengths"),
        "candidates_two_sample_auc": tr("… best of {count} replies (floor: one reply)", count=COUNT),
        "habits_distance": tr("distance of writing habits"),
        "habits_distance_prompted": tr("… of the base model with a prompt"),
        "distinct_2": tr("variety of word pairs (1: yours)"),
        "length_spread": tr("spread of lengths (1: yours)"),
        "authorship": tr("a judge takes its replies for yours"),
        "relevance": tr("replies fit what was said"),
        "candidates_relevance": tr("… best of {count} replies (floor: one reply)", count=COUNT),
        "out_of_character": tr("says that it is a machine"),
        "verbatim_run": tr("words repeated from training, longest run"),
        "recited": tr("replies that recite eight words or more"),
        "forgetting": tr("neutral text: change in bits"),
        "quiz": tr("people tell it from you (50 %: they guess)"),
    }


def _details() -> dict[str, str]:
    return {
        "bits_per_byte_base": tr("… of the base model alone"),
        "bits_change_prompted": tr("… change against the base with a prompt"),
        "choice_adapter": tr("… by its likelihood alone"),
        "choice_difference": tr("… by how much likelier than for the base"),
        "choice_context": tr("… by how much likelier than without the context (floor: the base)"),
        "choice_base": tr("… by the base model's likelihood"),
        "choice_others_adapter": tr("… by its likelihood alone"),
        "choice_others_difference": tr("… by how much likelier than for the base"),
        "choice_others_context": tr("… by how much likelier than without the context (floor: the base)"),
        "choice_others_base": tr("… by the base model's likelihood"),
        "choice_questions": tr("… questions asked"),
        "two_sample_auc_prompted": tr("… of the base model with a prompt"),
        "two_sample_auc_matched_prompted": tr("… of the base model with a prompt"),
        "self_bleu": tr("word pairs that recur in other replies (1: yours)"),
        "authorship_prompted": tr("… of the base model with a prompt"),
        "relevance_prompted": tr("… of the base model with a prompt"),
        "verbatim_run_99": tr("… in one reply of a hundred"),
    }


def _habits() -> dict[str, str]:
    return {
        "habit_length": tr("… length"),
        "habit_bubbles": tr("… messages in a row"),
        "habit_words_a_bubble": tr("… words of a message"),
        "habit_emoji": tr("… emoji"),
        "habit_punctuation": tr("… punctuation"),
        "habit_case": tr("… capital letters"),
        "habit_opening_capital": tr("… a capital at the beginning"),
        "habit_plain_ending": tr("… no sign at the end"),
        "habit_script": tr("… Chinese, Japanese and Korean signs"),
        "habit_opening_words": tr("… first words"),
        "habit_closing_words": tr("… last words"),
    }
