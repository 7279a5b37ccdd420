"""The titles of metrics and goals in reports."""

import re

from doppel.i18n import tr
from training.fidelity.best_of import CANDIDATES

_CURVE = re.compile(r"two_sample_auc_(\d+)_replies")


def title_of(name: str) -> str:
    """The title of a metric; one that begins with dots details the one before it."""
    if match := _CURVE.fullmatch(name):
        return tr("… from {count} replies", count=match[1])
    return {**_main_titles(), **_detail_titles(), **_habit_titles()}.get(name, name)


def title_of_goal(name: str) -> str:
    """The title of a goal, or of a check of the gate."""
    return {
        "bits per byte against the base": tr("change in bits per byte against the base model"),
        "bits per byte against the base with a prompt": tr(
            "change in bits per byte against the base model with a prompt"
        ),
        "improvement on others over improvement on the owner": tr(
            "improvement on other people's messages, relative to yours"
        ),
        "choice among four": tr("picks your reply out of four"),
        "choice among three, strangers' distractors": tr("picks your reply out of three, the others by other people"),
        "distance of habits over the prompted base's": tr(
            "distance of writing habits, relative to the base model with a prompt"
        ),
        "specificity": tr("how much more it learned about you than about others"),
        "recited beyond the owner's own repeating": tr("recited replies beyond your own repetitions"),
        "recited from contacts beyond the owner's own repeating": tr(
            "recited replies from your contacts' messages beyond your own repetitions"
        ),
        "repeated what it answers more than the owner does": tr("repeats what it answers more than you do"),
        "gave its commonest reply more than the owner does": tr("gives one stock reply more often than you do"),
        "silent": tr("no reply at all"),
        "habits within the owner's own range": tr("share of writing habits within your own range"),
        "stronger detector, above the owner's own": tr("a stronger classifier tells it from you, beyond chance"),
        "attributed beyond the owner's own": tr("attributed to you more than your own messages are"),
    }.get(name, name)


def _main_titles() -> dict[str, str]:
    return {
        "bits_per_byte": tr("bits per byte of your unseen messages, in running chats"),
        "bits_per_byte_prompted": tr("… base model with a prompt"),
        "bits_change": tr("… change against the base model (floor: on other people's messages)"),
        "bits_change_far": tr("… after more than a screen of conversation"),
        "bits_change_short": tr("… with short prompts"),
        "specificity": tr("how much more it learned about you than about others"),
        "choice": tr("picks your reply out of four"),
        "choice_others": tr("… out of three, the others by other people"),
        "two_sample_auc": tr("a classifier tells it from you (0.5: it cannot)"),
        "two_sample_auc_matched": tr("… at equal lengths"),
        "two_sample_auc_informed": tr("… a stronger classifier, which also asks the base model"),
        "candidates_two_sample_auc": tr("… best of {count} replies (floor: a single reply)", count=CANDIDATES),
        "habits_distance": tr("distance of writing habits"),
        "habits_distance_prompted": tr("… base model with a prompt"),
        "distinct_2": tr("variety of word pairs (1: like you)"),
        "length_spread": tr("spread of reply lengths (1: like you)"),
        "style_spread": tr("spread of writing habits (1: like you)"),
        "habits_within": tr("writing habits within your own range"),
        "silent": tr("no reply at all"),
        "authorship": tr("a classifier attributes its replies to you"),
        "relevance": tr("replies fit the conversation, by a matcher"),
        "relevance_self_judged": tr("… by the base model itself"),
        "candidates_relevance": tr("… best of {count} replies (floor: a single reply)", count=CANDIDATES),
        "out_of_character": tr("replies that say they come from an AI"),
        "verbatim_run": tr("longest run of words copied from your messages"),
        "recited": tr("replies that copy your messages, eight words or more"),
        "recited_from_contacts": tr("… from your contacts' messages"),
        "parroted": tr("replies that repeat what they answer"),
        "commonest_reply": tr("replies that are the commonest one"),
        "forgetting": tr("change in bits on neutral text (forgetting)"),
        "quiz": tr("people tell it from you (50 %: guessing)"),
    }


def _detail_titles() -> dict[str, str]:
    return {
        "bits_per_byte_base": tr("… base model alone"),
        "bits_change_prompted": tr("… change against the base model with a prompt"),
        "bits_change_near": tr("… within a screen of conversation"),
        "bits_change_newest": tr("… on the newest twentieth of your messages"),
        "prompt_change": tr("… change of the base model by the prompt"),
        "scored_tokens": tr("… tokens of yours read"),
        "choice_adapter": tr("… by likelihood alone"),
        "choice_difference": tr("… by the gain in likelihood over the base model"),
        "choice_context": tr("… by the gain in likelihood from the context (floor: base model)"),
        "choice_base": tr("… by the base model's likelihood"),
        "choice_others_adapter": tr("… by likelihood alone"),
        "choice_others_difference": tr("… by the gain in likelihood over the base model"),
        "choice_others_context": tr("… by the gain in likelihood from the context (floor: base model)"),
        "choice_others_base": tr("… by the base model's likelihood"),
        "choice_questions": tr("… number of questions"),
        "two_sample_auc_prompted": tr("… base model with a prompt"),
        "two_sample_auc_matched_prompted": tr("… base model with a prompt"),
        "self_bleu": tr("word pairs that recur in other replies (1: like you)"),
        "authorship_prompted": tr("… base model with a prompt"),
        "relevance_prompted": tr("… base model with a prompt"),
        "relevance_self_judged_prompted": tr("… base model with a prompt"),
        "candidates_relevance_self_judged": tr("… best of {count} replies (floor: a single reply)", count=CANDIDATES),
        "verbatim_run_99": tr("… 99th percentile"),
    }


def _habit_titles() -> dict[str, str]:
    return {
        "habit_length": tr("… length"),
        "habit_bubbles": tr("… messages in a row"),
        "habit_words_a_bubble": tr("… words per message"),
        "habit_emoji": tr("… emoji"),
        "habit_punctuation": tr("… punctuation"),
        "habit_case": tr("… capital letters"),
        "habit_opening_capital": tr("… capital letter at the start"),
        "habit_plain_ending": tr("… no punctuation at the end"),
        "habit_script": tr("… Chinese, Japanese and Korean characters"),
        "habit_opening_words": tr("… first words"),
        "habit_closing_words": tr("… last words"),
    }
